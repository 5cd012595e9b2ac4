import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.statistics import Estimate, difference, interval, standard_error


def mean_of(x) -> Estimate:
    return Estimate(float(np.mean(x)), x - np.mean(x))


def test_of_a_mean_it_is_the_textbook_formula():
    x = np.random.default_rng(1).normal(size=37)
    assert standard_error(mean_of(x).influence) == pytest.approx(x.std(ddof=1) / np.sqrt(37), rel=1e-12)


def test_groups_of_one_change_nothing_and_labels_may_be_anything():
    influence = mean_of(np.random.default_rng(2).normal(size=20)).influence
    plain = standard_error(influence)
    assert standard_error(influence, np.arange(20)[::-1]) == pytest.approx(plain, rel=1e-12)
    assert standard_error(influence, [f"image {i}" for i in range(20)]) == pytest.approx(plain, rel=1e-12)


def test_copies_add_no_information():
    """Each sample four times, grouped, is the original experiment; ungrouped it would look twice as good."""
    x = np.random.default_rng(3).normal(size=50)
    copies, groups = np.repeat(x, 4), np.repeat(np.arange(50), 4)
    honest = standard_error(mean_of(x).influence)
    assert standard_error(mean_of(copies).influence, groups) == pytest.approx(honest, rel=1e-12)
    assert standard_error(mean_of(copies).influence) == pytest.approx(honest / 2, rel=0.02)


def test_grouped_error_is_the_spread_over_data_sets():
    """Groups of unequal size with a shared part, as captions of one image have."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    estimates = [mean_of(rng.normal(size=60)[groups] + rng.normal(size=len(groups))) for _ in range(1000)]
    spread = np.std([e.value for e in estimates], ddof=1)
    grouped = np.sqrt(np.mean([standard_error(e.influence, groups) ** 2 for e in estimates]))
    naive = np.sqrt(np.mean([standard_error(e.influence) ** 2 for e in estimates]))
    assert grouped == pytest.approx(spread, rel=0.1)
    assert naive < 0.8 * spread


def test_a_paired_difference_profits_from_what_both_share():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=400)
    a, b = mean_of(shared + 0.1 * rng.normal(size=400) + 0.05), mean_of(shared + 0.1 * rng.normal(size=400))
    paired = difference(a, b)
    assert paired.value == a.value - b.value
    assert paired.stderr == pytest.approx(0.1 * np.sqrt(2 / 400), rel=0.15)
    assert difference(a, a) == (0, 0)
    assert difference(b, a) == pytest.approx((-paired.value, paired.stderr))


def test_interval_of_95_percent():
    assert interval(10, 2) == pytest.approx((10 - 1.959964 * 2, 10 + 1.959964 * 2), rel=1e-6)
    assert interval(10, 2, 0.5).high < interval(10, 2, 0.9).high
    assert interval(3, 0) == (3, 3)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(2000):
        estimate = mean_of(rng.exponential(size=200))
        low, high = interval(estimate.value, standard_error(estimate.influence))
        hits += low < 1 < high
    assert 0.93 < hits / 2000 < 0.97


@pytest.mark.parametrize("level", [0, 1, -0.1, 95])
def test_impossible_levels_are_refused(level):
    with pytest.raises(InputError, match="between 0 and 1"):
        interval(0, 1, level)


def test_what_has_no_error_is_refused():
    with pytest.raises(InputError, match="at least 2 independent groups of samples, got 1"):
        standard_error(np.zeros(5), np.ones(5))
    with pytest.raises(InputError, match="got 1"):
        standard_error(np.zeros(1))
    with pytest.raises(InputError, match="expected 5 group labels"):
        standard_error(np.zeros(5), np.arange(4))
    with pytest.raises(InputError, match="same samples on both sides, got 5 and 4"):
        difference(Estimate(0, np.zeros(5)), Estimate(0, np.zeros(4)))
