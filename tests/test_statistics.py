import numpy as np
import pytest
import scipy.stats

from sd2eval.errors import InputError
from sd2eval.statistics import (
    Estimate,
    average,
    benjamini_hochberg,
    detectable,
    difference,
    holm,
    interval,
    p_value,
    standard_error,
)


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


def test_p_value_and_interval_of_a_mean_are_those_of_the_t_test():
    x = np.random.default_rng(7).normal(0.3, 1, size=12)
    stderr = standard_error(mean_of(x).influence)
    theirs = scipy.stats.ttest_1samp(x, 0)
    assert p_value(x.mean(), stderr, 11) == pytest.approx(theirs.pvalue, rel=1e-10)
    assert interval(x.mean(), stderr, dof=11) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-10)


def test_p_value_of_a_paired_difference_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(8)
    x = rng.normal(size=9)
    y = x + rng.normal(0.5, 1, size=9)
    value, stderr = difference(mean_of(y), mean_of(x))
    assert p_value(value, stderr, 8) == pytest.approx(scipy.stats.ttest_rel(y, x).pvalue, rel=1e-10)


def test_p_value_approaches_the_normal_one_and_knows_no_side():
    assert p_value(1.959964, 1, 10**7) == pytest.approx(0.05, rel=1e-5)
    assert p_value(-2, 1, 5) == p_value(2, 1, 5) > p_value(2, 1, 50)


def test_without_spread_only_zero_is_no_difference():
    assert p_value(0, 0, 5) == 1
    assert p_value(1e-9, 0, 5) == 0


def test_a_p_value_below_5_percent_and_an_interval_without_0_are_the_same_statement():
    for value in np.linspace(-4, 4, 41):
        low, high = interval(value, 1, dof=7)
        assert (p_value(value, 1, 7) < 0.05) == (low > 0 or high < 0)


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 (raised to the one before), 0.9 x 1; in the order given
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.4, 0.9, 0.8]) == pytest.approx([1, 1, 1])
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([]).shape == (0,)


def test_benjamini_hochberg_by_hand():
    # 0.9 x 4/4, 0.04 x 4/3 = 0.0533, 0.03 x 4/2 = 0.06 (lowered to the one after), 0.01 x 4/1
    assert benjamini_hochberg([0.03, 0.01, 0.9, 0.04]) == pytest.approx([0.16 / 3, 0.04, 0.9, 0.16 / 3])
    assert benjamini_hochberg([]).shape == (0,)


def test_benjamini_hochberg_is_scipys():
    rng = np.random.default_rng(9)
    for m in (1, 2, 7, 50):
        p = rng.uniform(size=m) ** 3
        assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p), rel=1e-12)


def test_holm_rejects_what_the_step_down_procedure_rejects():
    """The procedure as Holm states it: up the sorted list until one exceeds alpha / (m - k + 1)."""
    rng = np.random.default_rng(10)
    for _ in range(200):
        p = rng.uniform(size=8) ** 4
        rejected = np.zeros(8, dtype=bool)
        for k, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (8 - k):
                break
            rejected[index] = True
        assert ((holm(p) <= 0.05) == rejected).all()


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_corrections_keep_the_order_and_refuse_what_is_no_probability(correct):
    p = np.random.default_rng(11).uniform(size=20)
    corrected = correct(p)
    assert (corrected >= p).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()
    for bad in ([0.5, float("nan")], [1.1], [-0.1], [[0.5]]):
        with pytest.raises(InputError, match="p-values"):
            correct(bad)


def test_a_detectable_difference_is_detected_as_often_as_it_says():
    rng = np.random.default_rng(12)
    for alpha in (0.05, 0.005):
        shift = detectable(1 / np.sqrt(40), 39, alpha)
        x = rng.normal(shift, 1, size=(4000, 40))
        found = [p_value(row.mean(), row.std(ddof=1) / np.sqrt(40), 39) < alpha for row in x]
        assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def test_the_average_over_cells_counts_an_image_once():
    """The mean of K means over the same samples is the mean of each sample's own mean."""
    x = np.random.default_rng(13).normal(size=(3, 30)) + np.random.default_rng(14).normal(size=30)
    combined = average([mean_of(row) for row in x], np.ones((3, 30), dtype=bool))
    direct = mean_of(x.mean(axis=0))
    assert combined.value == pytest.approx(direct.value)
    np.testing.assert_allclose(combined.influence, direct.influence, atol=1e-12)
    independent = standard_error(np.concatenate([mean_of(row).influence for row in x]))
    assert standard_error(combined.influence) > 1.3 * independent


def test_the_average_over_cells_with_gaps_has_the_spread_it_says():
    rng = np.random.default_rng(15)
    used = rng.uniform(size=(3, 50)) < 0.8
    used[:, 7] = False
    values, errors = [], []
    for _ in range(2000):
        x = rng.normal(size=(3, 50)) + 2 * rng.normal(size=50)
        combined = average([mean_of(row[mask]) for row, mask in zip(x, used, strict=True)], used)
        values.append(combined.value)
        errors.append(standard_error(combined.influence))
    assert combined.n == used.any(axis=0).sum() < 50
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.05)


def test_an_average_of_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="2 for 1"):
        average([mean_of(np.arange(3.0))], np.ones((2, 3), dtype=bool))
    with pytest.raises(InputError, match="3 samples is said to have used 2"):
        average([mean_of(np.arange(3.0))], np.array([[True, True, False]]))
    with pytest.raises(InputError, match="got 0 for 0"):
        average([], np.ones((0, 3), dtype=bool))
