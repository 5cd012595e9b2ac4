"""The error of a classifier with its interval: closed forms, and how often it holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.probes.error_rates import error_rate
from sd2eval.probes.proportions import rate, wilson


def test_one_class_of_independent_images_is_a_rate() -> None:
    wrong = [1] * 30 + [0] * 70
    found, plain = error_rate(wrong, [0] * 100, range(100)), rate(wrong)
    assert found.value == plain.value
    assert (found.stderr, found.low, found.high) == pytest.approx(
        (plain.stderr, plain.low, plain.high), rel=0.02
    )


def test_classes_count_alike() -> None:
    found = error_rate([1, 1, 0, 0] + [0] * 16, [0] * 4 + [1] * 16, range(20))
    assert found.value == pytest.approx(0.25)
    assert found.stderr == pytest.approx(math.sqrt(0.5 * 0.5 / 4) / 2, rel=0.05)


def test_without_an_error_a_group_counts_once() -> None:
    found = error_rate([0] * 40, [0] * 20 + [1] * 20, [i % 20 // 2 for i in range(40)])
    assert (found.value, found.low, found.groups) == (0.0, 0.0, 10)
    assert found.high == pytest.approx(wilson(0.0, 10, dof=9).high)


@pytest.mark.parametrize("p", [0.05, 0.2])
def test_the_interval_of_images_that_are_alike_by_prompt_holds_the_truth(p: float) -> None:
    """Four images of each of 20 prompts per class, half of them wrong or right as their prompt is."""
    rng, held, alone = np.random.default_rng(1), 0, 0
    prompts, classes = np.repeat(np.arange(60), 4), np.repeat(np.arange(3), 80)
    each = p * np.array([0.5, 1.0, 1.5])
    for _ in range(1500):
        common = rng.random(60) < np.repeat(each, 20)
        wrong = np.where(rng.random(240) < 0.5, common[prompts], rng.random(240) < each[classes])
        found, apart = error_rate(wrong, classes, prompts), error_rate(wrong, classes, np.arange(240))
        held += found.low <= p <= found.high
        alone += apart.low <= p <= apart.high
    assert 0.92 <= held / 1500 <= 0.985
    assert alone < held


def test_a_class_without_an_answer_is_refused() -> None:
    with pytest.raises(InputError, match="images of every class"):
        error_rate([0, 1], [0, 2], [0, 1])
