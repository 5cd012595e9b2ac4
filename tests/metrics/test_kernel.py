import itertools

import numpy as np
import pytest

from sd2eval.metrics import _pairs
from sd2eval.metrics.kernel import kernel_distance, kernel_reference
from sd2eval.statistics import standard_error


def naive(x, y) -> float:
    """The unbiased estimator, pair by pair (Binkowski et al. 2018, eq. 4)."""

    def k(a, b) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    xx = [k(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)]
    yy = [k(y[i], y[j]) for i, j in itertools.permutations(range(len(y)), 2)]
    xy = [k(a, b) for a in x for b in y]
    return float(np.mean(xx) + np.mean(yy) - 2 * np.mean(xy))


@pytest.mark.parametrize("block", [1, 5, 7, 1024])
def test_value_is_the_double_sum_whatever_the_block(rng, monkeypatch, block):
    monkeypatch.setattr(_pairs, "BLOCK", block)
    x, y = rng.normal(size=(14, 6)) + 0.5, rng.normal(size=(11, 6))
    assert kernel_distance(x, kernel_reference(y)).value == pytest.approx(naive(x, y), rel=1e-12)


def test_symmetric_and_blind_to_order(rng):
    x, y = rng.normal(size=(30, 5)) ** 2, rng.normal(size=(40, 5))
    plain = kernel_distance(x, kernel_reference(y))
    order = rng.permutation(30)
    shuffled = kernel_distance(x[order], kernel_reference(y[::-1]))
    assert kernel_distance(y, kernel_reference(x)).value == pytest.approx(plain.value, rel=1e-10)
    assert shuffled.value == pytest.approx(plain.value, rel=1e-10)
    np.testing.assert_allclose(shuffled.influence, plain.influence[order], rtol=1e-9, atol=1e-12)


def test_unbiased_also_for_few_samples(rng):
    """Sets from one distribution: the mean over many draws is zero, and single values fall on both sides."""
    reference = kernel_reference(rng.normal(size=(4000, 4)))
    values = np.array([kernel_distance(rng.normal(size=(8, 4)), reference).value for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert (values < 0).any()
    assert (values > 0).any()


def test_influence_is_the_jackknife(rng):
    x, reference = rng.normal(size=(200, 4)) ** 2, kernel_reference(rng.normal(size=(50, 4)))
    without = np.array([kernel_distance(np.delete(x, i, axis=0), reference).value for i in range(len(x))])
    expected = (len(x) - 1) * (without.mean() - without)
    found = kernel_distance(x, reference).influence
    assert found.mean() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("n", [64, 400])
def test_standard_error_is_the_spread_over_data_sets(rng, n):
    reference = kernel_reference(rng.normal(size=(500, 16)))
    estimates = [kernel_distance(1.2 * rng.normal(size=(n, 16)) + 0.4, reference) for _ in range(400)]
    spread = np.std([e.value for e in estimates], ddof=1)
    claimed = np.sqrt(np.mean([standard_error(e.influence) ** 2 for e in estimates]))
    assert claimed == pytest.approx(spread, rel=0.15)
