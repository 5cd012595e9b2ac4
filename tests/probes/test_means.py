"""Intervals of skewed means: the usual one where nothing is skewed, and the truth inside where much is."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.metrics.paired import mean_of_images
from sd2eval.probes.means import mean_interval
from sd2eval.statistics import interval, standard_error


def test_without_skewness_it_is_students_interval() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0] * 6)
    found = mean_of_images(values)
    usual = interval(3.0, standard_error(found.influence), dof=29)
    assert mean_interval(found) == pytest.approx(usual)


def test_it_leans_to_the_side_of_the_long_tail() -> None:
    low, high = mean_interval(mean_of_images(np.array([0.0] * 50 + [1.0] * 6)))
    mean = 6 / 56
    assert high - mean > mean - low > 0
    mirrored = mean_interval(mean_of_images(-np.array([0.0] * 50 + [1.0] * 6)))
    assert (mirrored.low, mirrored.high) == pytest.approx((-high, -low))


def test_what_never_varies_has_no_width() -> None:
    assert mean_interval(mean_of_images(np.full(9, 0.25))) == (0.25, 0.25)


def test_copies_in_a_group_count_once() -> None:
    once = np.random.default_rng(0).exponential(size=40)
    alone = mean_interval(mean_of_images(once))
    assert mean_interval(mean_of_images(np.repeat(once, 3)), np.repeat(np.arange(40), 3)) == pytest.approx(
        alone
    )


@pytest.mark.parametrize("n", [60, 100])
def test_rare_losses_are_covered_where_students_interval_fails(n: int) -> None:
    rng, ours, students = np.random.default_rng(1), 0, 0
    for _ in range(2000):
        found = mean_of_images(np.where(rng.random(n) < 0.1, rng.normal(0.65, 0.25, n), 0.0))
        low, high = mean_interval(found)
        ours += low <= 0.065 <= high
        low, high = interval(found.value, standard_error(found.influence), dof=n - 1)
        students += low <= 0.065 <= high
    assert 0.94 <= ours / 2000 <= 0.985
    assert students / 2000 < 0.935
