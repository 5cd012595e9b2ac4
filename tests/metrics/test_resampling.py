"""Paired bootstrap replicates against resampled data sets written out."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics.frechet import frechet_distance, frechet_reference, gaussian
from sd2eval.metrics.paired import mean_of_images
from sd2eval.metrics.resampling import frechet_replicates, linear_replicates, resample_counts
from sd2eval.statistics import difference, standard_error


def cells(rng, n, d, m):
    common = rng.normal(size=(n, d))
    pair = [common + 0.3 * rng.normal(size=(n, d)) + shift for shift in (0.2, 0.4)]
    return pair, frechet_reference(gaussian(rng.normal(size=(m, d))))


@pytest.mark.parametrize(
    ("n", "d", "m"),
    [(60, 5, 80), (12, 40, 90), (12, 40, 8), (24, 20, 60)],
    ids=["n > d", "n < d", "rank", "near"],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_replicate_is_the_distance_of_the_resampled_rows(rng, n, d, m, grouped):
    pair, reference = cells(rng, n, d, m)
    counts = resample_counts(n, 6, seed=1, groups=np.arange(n) // 3 if grouped else None)
    found = frechet_replicates(pair, reference, counts)
    expected = [
        [frechet_distance(np.repeat(cell, times, axis=0), reference).value for cell in pair]
        for times in counts
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_drawing_every_sample_once_gives_the_value_itself(rng):
    pair, reference = cells(rng, 20, 6, 50)
    once = np.ones((1, 20), dtype=int)
    estimates = [frechet_distance(cell, reference) for cell in pair]
    values = [[estimate.value for estimate in estimates]]
    np.testing.assert_allclose(frechet_replicates(pair, reference, once), values, rtol=1e-10)
    np.testing.assert_allclose(linear_replicates(estimates, once), values, rtol=1e-12)


def test_counts_add_up_and_groups_stay_together():
    counts = resample_counts(30, 500, seed=0)
    assert (counts.sum(axis=1) == 30).all()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1, rel=0.1)
    groups = np.repeat([7, 7, 3, 9, 1, 1], 5)
    grouped = resample_counts(30, 500, seed=0, groups=groups)
    for label in (1, 3, 7, 9):
        members = grouped[:, groups == label]
        assert (members == members[:, :1]).all()
        assert 0.8 < members.mean() < 1.2


def test_the_seed_alone_decides():
    np.testing.assert_array_equal(resample_counts(9, 4, seed=2), resample_counts(9, 4, seed=2))
    assert (resample_counts(9, 4, seed=2) != resample_counts(9, 4, seed=3)).any()


def test_linear_replicates_of_a_mean_are_its_bootstrap(rng):
    values = rng.normal(size=(2, 25))
    counts = resample_counts(25, 50, seed=0, groups=np.arange(25) // 2)
    expected = counts @ values.T / counts.sum(axis=1, keepdims=True)
    found = linear_replicates([mean_of_images(row) for row in values], counts)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
def test_spread_of_replicates_is_the_standard_error(grouped):
    """Two ways to one number where samples are many: resampling rows, and the sum of squared influences."""
    rng = np.random.default_rng(6)
    pair, reference = cells(rng, 400, 4, 2000)
    groups = np.arange(400) // 2 if grouped else None
    if grouped:  # captions of one image are nearly copies
        pair = [np.repeat(cell[::2], 2, axis=0) + 0.1 * rng.normal(size=(400, 4)) for cell in pair]
    counts = resample_counts(400, 1000, seed=0, groups=groups)
    estimates = [frechet_distance(cell, reference) for cell in pair]
    exact, linear = frechet_replicates(pair, reference, counts), linear_replicates(estimates, counts)
    for replicates, tolerance in ((exact, 0.12), (linear, 0.08)):
        for column, estimate in enumerate(estimates):
            claimed = standard_error(estimate.influence, groups)
            assert replicates[:, column].std() == pytest.approx(claimed, rel=tolerance)
        paired = difference(*estimates, groups)
        gaps = replicates[:, 0] - replicates[:, 1]
        assert gaps.std() == pytest.approx(paired.stderr, rel=tolerance)
        assert abs(gaps.mean() - paired.value) < 0.3 * paired.stderr


def test_exact_replicates_lie_above_the_value_and_linear_ones_around_it():
    rng = np.random.default_rng(3)
    pair, reference = cells(rng, 60, 40, 500)
    counts = resample_counts(60, 200, seed=0)
    estimate = frechet_distance(pair[0], reference)
    exact = frechet_replicates(pair[:1], reference, counts)
    linear = linear_replicates([estimate], counts)
    assert exact.min() > estimate.value
    assert linear.mean() == pytest.approx(estimate.value, abs=0.3 * standard_error(estimate.influence))


def test_mistakes_are_named(rng):
    pair, reference = cells(rng, 20, 6, 50)
    counts = resample_counts(20, 3, seed=0)
    with pytest.raises(InputError, match=r"counts are of 20 samples, the cells have \[19, 20\]"):
        frechet_replicates([pair[0], pair[1][1:]], reference, counts)
    with pytest.raises(InputError, match="features of cell 1 have d = 5, the reference d = 6"):
        frechet_replicates([pair[0], pair[1][:, 1:]], reference, counts)
    with pytest.raises(InputError, match="features of cell 0: NaN"):
        frechet_replicates([np.where(pair[0] > 1, np.nan, pair[0])], reference, counts)
    with pytest.raises(InputError, match="expected whole counts"):
        frechet_replicates(pair, reference, counts / 2)
    with pytest.raises(InputError, match="at least 2 in each replicate"):
        frechet_replicates(pair, reference, 0 * counts)
    with pytest.raises(InputError, match=r"expected 5 group labels, one per sample, got shape \[4\]"):
        resample_counts(5, 2, seed=0, groups=np.arange(4))
    with pytest.raises(InputError, match="2 groups and 1 replicate or more, got 1 and 2"):
        resample_counts(5, 2, seed=0, groups=np.zeros(5))
