"""Shares through a classifier that errs, against closed forms and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.probes import proportions
from sd2eval.probes.proportions import wilson
from sd2eval.probes.shares import (
    ClassErrors,
    class_errors,
    corrected,
    corrected_values,
    surplus,
)


def errors(counts: list[list[float]]) -> ClassErrors:
    return ClassErrors(tuple("abcdef"[: len(counts)]), np.array(counts))


@pytest.mark.parametrize("count", [0, 1, 7, 50, 100])
def test_a_classifier_without_errors_gives_wilsons_interval(count: int) -> None:
    perfect = errors([[1e7, 0, 0], [0, 1e7, 0]])
    share = corrected(np.repeat([0, 1], [count, 100 - count]), perfect)[0]
    expected = wilson(count / 100, 100)
    assert share.value == pytest.approx(count / 100, abs=1e-6)
    assert (share.low, share.high) == pytest.approx(expected, abs=2e-3)


def test_two_classes_have_rogan_and_gladens_value() -> None:
    """(seen + specificity - 1) / (sensitivity + specificity - 1) = (0.4 + 0.9 - 1) / (0.8 + 0.9 - 1)"""
    found = corrected(np.repeat([0, 1], [40, 60]), errors([[80, 20, 0], [10, 90, 0]]))
    assert found[0].value == pytest.approx(0.3 / 0.7)
    assert found[0].value + found[1].value == pytest.approx(1)


def test_three_classes_solve_the_linear_system() -> None:
    m = np.array([[8, 1, 1], [0, 9, 1], [2, 2, 6]]) / 10
    truth = np.array([0.2, 0.5, 0.3])
    answers = np.repeat([0, 1, 2], np.rint(truth @ m * 1000).astype(int))
    found = corrected(answers, errors([[8, 1, 1, 0], [0, 9, 1, 0], [2, 2, 6, 0]]))
    assert [one.value for one in found] == pytest.approx(truth)
    assert corrected_values(answers, errors([[8, 1, 1, 0], [0, 9, 1, 0], [2, 2, 6, 0]])) == pytest.approx(
        truth
    )


def test_the_undecided_are_no_share_of_any_class() -> None:
    known = errors([[18, 1, 9], [2, 19, 0]])
    without = corrected(np.repeat([0, 1], [30, 10]), known)
    with_them = corrected(np.repeat([0, 1, 2], [30, 10, 55]), known)
    assert with_them == without


def test_single_classes_can_be_asked_for() -> None:
    known = errors([[18, 1, 1, 0], [2, 16, 2, 0], [0, 1, 19, 0]])
    answers = np.repeat([0, 1, 2], [30, 10, 20])
    assert corrected(answers, known, of=["b"]) == [corrected(answers, known)[1]]


def test_fewer_known_images_make_the_interval_wider() -> None:
    answers = np.repeat([0, 1], [40, 60])
    few, many = (corrected(answers, errors([[9 * k, k, 0], [k, 9 * k, 0]]))[0] for k in (2, 200))
    assert few.value == pytest.approx(many.value)
    assert few.low < many.low - 0.02
    assert few.high > many.high + 0.02
    assert few.stderr > many.stderr


def test_images_of_one_scene_count_less() -> None:
    answers = np.repeat([0, 1], [50, 50])
    known = errors([[1000, 0, 0], [0, 1000, 0]])
    alone, together = corrected(answers, known)[0], corrected(answers, known, np.arange(100) // 10)[0]
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_intervals_cover_and_values_are_unbiased(p: float) -> None:
    """With 20 known images per class and errors of 15%."""
    rng = np.random.default_rng(round(10 * p))
    m = np.array([[0.85, 0.10, 0.05], [0.08, 0.87, 0.05], [0.05, 0.10, 0.85]])
    shares = np.array([p, (1 - p) / 3, 2 * (1 - p) / 3])
    found = []
    for _ in range(120):
        known = np.column_stack([[rng.multinomial(20, row) for row in m], np.zeros(3)])
        truth = rng.choice(3, size=80, p=shares)
        answers = np.array([rng.choice(3, p=m[one]) for one in truth])
        found.append(corrected(answers, ClassErrors(("a", "b", "c"), known), of="a")[0])
    values = np.array([one.value for one in found])
    # The inverse of a noisy matrix has a bias of its own, of the order of 1 / 20.
    assert values.mean() == pytest.approx(p, abs=3 * values.std() / np.sqrt(120) + 0.015)
    assert np.mean([one.low <= p <= one.high for one in found]) >= 0.9
    if 0 < p < 1:
        claimed = np.sqrt(np.mean([one.stderr**2 for one in found]))
        assert claimed == pytest.approx(values.std(), rel=0.25)


def test_four_classes_of_which_one_is_absent_are_unbiased_and_covered() -> None:
    p = np.array([0.6, 0.25, 0.15, 0.0])
    m = np.array([[0.9, 0.04, 0.03, 0.03], [0.1, 0.85, 0.05, 0], [0.0, 0.1, 0.9, 0.0], [0.05, 0, 0.05, 0.9]])
    rng = np.random.default_rng(3)
    values, holds = [], []
    for _ in range(300):
        known = np.column_stack([[rng.multinomial(150, row) for row in m], np.zeros(4)])
        found = corrected(rng.choice(4, 200, p=p @ m), ClassErrors(tuple("abcd"), known))
        values.append([one.value for one in found])
        holds.append([one.low <= share <= one.high for one, share in zip(found, p, strict=True)])
    assert np.mean(values, axis=0) == pytest.approx(p, abs=0.008)
    assert sum(values[0]) == pytest.approx(1)
    coverage = np.mean(holds, axis=0)
    assert ((coverage >= 0.92) & (coverage <= 0.985))[:3].all(), coverage
    assert coverage[3] >= 0.92


def test_effective_numbers_are_those_of_plain_rates() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(120) // 4
    answers = (rng.random(30) < 0.4).astype(int).repeat(4)
    answers[rng.random(120) < 0.2] ^= 1
    plain = proportions.rate(answers == 0, groups)
    found = corrected(answers, errors([[1e6, 0, 0], [0, 1e6, 0]]), groups)[0]
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_errors_are_counted_per_class_and_without_the_undecided() -> None:
    known = class_errors(["a", "b"], [0, 0, 0, 0, 1], [0, 0, 1, 2, 1])
    assert known.counts.tolist() == [[2, 1, 1], [0, 1, 0]]
    assert known.error == pytest.approx((1 / 3 + 0) / 2)
    assert known.undecided == pytest.approx((1 / 4 + 0) / 2)


def test_more_undecided_than_any_known_class_is_noticed() -> None:
    known = errors([[45, 0, 5], [0, 50, 0]])
    assert surplus(np.repeat([0, 1, 2], [60, 35, 5]), known) < 1
    assert surplus(np.repeat([0, 1, 2], [30, 10, 60]), known) > 5


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(InputError, match="same answers"):
        corrected([0, 1, 1], errors([[5, 5, 0], [5, 5, 0]]))
    with pytest.raises(InputError, match="at least 2 decided"):
        corrected([2, 2, 0], errors([[5, 1, 0], [1, 5, 0]]))
    with pytest.raises(InputError, match="no known image of class 'b'"):
        corrected([0, 1], errors([[5, 1, 0], [0, 0, 5]]))
    with pytest.raises(InputError, match="class 'b'"):
        class_errors(["a", "b"], [0, 0], [0, 1])
