"""Rates and shares: closed forms, other implementations, how often intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest

from sd2eval.errors import InputError
from sd2eval.probes.proportions import (
    Confusion,
    Share,
    codes_of,
    corrected,
    effective_number,
    rate,
    wilson,
)

REPEATS = 1500
CATEGORIES = ("a", "b", "c", "d")


def covered(draw: Callable[[np.random.Generator], Share], truth: float) -> tuple[float, float]:
    """Return how often the interval holds the truth, and the mean of the values."""
    rng = np.random.default_rng(1)
    found = [draw(rng) for _ in range(REPEATS)]
    holds = np.mean([one.low - 1e-12 <= truth <= one.high + 1e-12 for one in found])
    return float(holds), float(np.mean([one.value for one in found]))


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (60, 200)])
def test_wilsons_interval_is_scipys(successes: int, n: int) -> None:
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_rate_without_groups_has_the_binomials_standard_error() -> None:
    found = rate([1] * 30 + [0] * 70)
    assert (found.value, found.n, found.effective, found.groups) == (0.3, 100, 100.0, 100)
    assert found.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 99))


def test_pictures_that_are_copies_of_each_other_count_once() -> None:
    rng = np.random.default_rng(0)
    once = rng.random(80) < 0.4
    groups = np.repeat(np.arange(80), 5)
    copies = rate(np.repeat(once, 5), groups)
    assert copies.effective == pytest.approx(80, rel=0.02)
    assert copies.stderr == pytest.approx(rate(once).stderr, rel=0.02)


def test_of_nothing_or_all_a_group_counts_once() -> None:
    found = rate([0] * 40, np.repeat(np.arange(8), 5))
    assert (found.value, found.low, found.effective) == (0.0, 0.0, 8.0)
    assert found.high == pytest.approx(wilson(0.0, 8, dof=7).high)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_an_interval_of_grouped_pictures_holds_the_truth(p: float) -> None:
    groups = np.repeat(np.arange(60), 3)

    def draw(rng: np.random.Generator) -> Share:
        common = rng.random(60) < p
        alike = rng.random(180) < 0.5  # else the picture is drawn anew
        return rate(np.where(alike, common[groups], rng.random(180) < p), groups)

    holds, mean = covered(draw, p)
    assert 0.92 <= holds <= (1.0 if p in (0, 1) else 0.98)
    assert mean == pytest.approx(p, abs=0.01)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_corrected_rate_is_unbiased_and_its_interval_holds_the_truth(p: float) -> None:
    sensitivity, specificity = 0.9, 0.95

    def draw(rng: np.random.Generator) -> Share:
        truth = rng.random(200) < p
        said = rng.random(200) < np.where(truth, sensitivity, 1 - specificity)
        known = Confusion(
            hits=rng.binomial(300, sensitivity),
            positives=300,
            false_alarms=rng.binomial(300, 1 - specificity),
            negatives=300,
        )
        return corrected(rate(said), known, clip=False)

    holds, mean = covered(draw, p)
    assert 0.92 <= holds <= (1.0 if p in (0, 1) else 0.98)
    assert mean == pytest.approx(p, abs=0.005)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("p", [0.1, 0.2, 0.25, 0.75])
def test_a_corrected_rate_of_hardly_any_groups_holds_the_truth(n: int, p: float) -> None:
    """Student's quantile of one degree of freedom is 12.7, and must not carry the interval away."""

    def draw(rng: np.random.Generator) -> Share:
        said = rng.random(n) < p * 0.85
        known = Confusion(hits=rng.binomial(64, 0.85), positives=64, false_alarms=0, negatives=336)
        return corrected(rate(said), known)

    assert covered(draw, p)[0] >= 0.95


def test_correcting_never_makes_two_groups_surer() -> None:
    known = Confusion(hits=54, positives=64, false_alarms=0, negatives=336)
    for said in ([0, 0], [0, 1], [1, 1]):
        seen = rate(said)
        found = corrected(seen, known)
        assert found.low <= seen.low
        assert found.high >= seen.high


def test_a_perfect_component_changes_nothing_but_the_width() -> None:
    seen = rate([1] * 30 + [0] * 70)
    known = Confusion(hits=5000, positives=5000, false_alarms=0, negatives=5000)
    found = corrected(seen, known)
    assert (found.value, found.stderr) == pytest.approx((0.3, seen.stderr))
    assert (found.low, found.high) == pytest.approx((seen.low, seen.high), abs=0.003)


def test_the_confusions_own_uncertainty_widens_the_interval() -> None:
    seen = rate([1] * 30 + [0] * 70)
    widths = []
    for known in (20, 200, 20000):
        found = corrected(
            seen, Confusion(hits=0.9 * known, positives=known, false_alarms=0.1 * known, negatives=known)
        )
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2]


def test_rogan_and_gladens_own_formula() -> None:
    known = Confusion(hits=80, positives=100, false_alarms=5, negatives=100)
    assert corrected(rate([1] * 40 + [0] * 60), known).value == pytest.approx((0.4 + 0.95 - 1) / 0.75)
    assert known.error == pytest.approx((0.2 + 0.05) / 2)


def test_a_coin_is_refused() -> None:
    with pytest.raises(InputError, match="as often as a coin"):
        corrected(rate([0, 1]), Confusion(hits=5, positives=10, false_alarms=5, negatives=10))


def test_clipped_values_stay_rates() -> None:
    known = Confusion(hits=90, positives=100, false_alarms=20, negatives=100)
    none = rate([1] * 5 + [0] * 95)  # fewer than the false alarms
    assert corrected(none, known, clip=False).value < 0
    found = corrected(none, known)
    assert (found.value, found.low) == (0.0, 0.0)
    assert 0 < found.high < 0.2


def test_a_label_that_is_no_category_is_refused() -> None:
    with pytest.raises(InputError, match="'x' is none of the categories a, b, c, d"):
        codes_of(["a", "x"], CATEGORIES)


def test_copies_count_once_over_all_categories() -> None:
    labels = np.array([letter for letter in "abcd" * 10 for _ in range(4)])
    indicators = np.stack([labels == letter for letter in CATEGORIES], axis=1)
    effective, groups = effective_number(indicators, np.repeat(np.arange(40), 4))
    assert groups == 40
    assert effective == pytest.approx(40, rel=0.05)


def test_too_little_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 truth values"):
        rate([1])
    with pytest.raises(InputError, match="at least 2 truth values"):
        rate([0.5, 0.2])
    with pytest.raises(InputError, match="at least 2"):
        rate([0, 1], [7, 7])
