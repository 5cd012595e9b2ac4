import time

import numpy as np
import pytest

from sd2eval.metrics.frechet import FrechetReference, Gaussian, frechet_distance, frechet_reference, gaussian
from sd2eval.statistics import standard_error


def reference_of(features) -> FrechetReference:
    return frechet_reference(gaussian(features))


def distance(x, y) -> float:
    return frechet_distance(x, reference_of(y)).value


def spectrum(rng, d):
    """Covariance factor with a spectrum that falls off like that of image features."""
    return np.linalg.qr(rng.normal(size=(d, d)))[0] * np.exp(-3 * np.arange(d) / d)


def test_gaussian_has_the_prescribed_moments(rng, cloud):
    factor = rng.normal(size=(5, 5))
    moments = gaussian(cloud(np.arange(5.0), factor, 40))
    np.testing.assert_allclose(moments.mean, np.arange(5.0), atol=1e-12)
    np.testing.assert_allclose(moments.covariance, factor @ factor.T, atol=1e-12)
    assert moments.n == 40


@pytest.mark.parametrize("n", [9, 12, 500], ids=["fewer samples than dimensions", "about as many", "more"])
def test_closed_form_for_diagonal_covariances(rng, cloud, n):
    d = 12 if n > 9 else 8  # n samples span at most n - 1 dimensions
    a, b = rng.uniform(0.5, 2, (2, d))
    if n == 12:
        a[-1] = 0  # 12 samples have rank 11: leave one direction empty
    rank = np.flatnonzero(a)
    x = cloud(np.ones(d), np.diag(a)[:, rank], n)
    y = cloud(np.zeros(d), np.diag(b), 100)
    assert distance(x, y) == pytest.approx(d + np.square(a - b).sum(), rel=1e-10)


def test_closed_form_for_covariances_that_do_not_commute(rng, cloud):
    p, q = rng.normal(size=(2, 2, 2))
    s, r = p @ p.T, q @ q.T
    root_trace = np.sqrt(np.trace(s @ r) + 2 * np.sqrt(np.linalg.det(s) * np.linalg.det(r)))
    expected = 2 + np.trace(s) + np.trace(r) - 2 * root_trace
    assert distance(cloud(np.ones(2), p, 30), cloud(np.zeros(2), q, 50)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [6, 60])
def test_closed_form_for_rank_one_covariances(rng, cloud, n):
    a, b = rng.normal(size=(2, 20, 1))
    expected = 20 + (a * a).sum() + (b * b).sum() - 2 * abs((a * b).sum())
    assert distance(cloud(np.ones(20), a, n), cloud(np.zeros(20), b, 15)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [20, 300])
def test_identical_sets_are_at_zero_and_never_below(rng, n):
    for _ in range(10):
        x = rng.normal(size=(n, 40)) @ spectrum(rng, 40)
        assert 0 <= distance(x, x) < 1e-9 * np.square(x).sum() / n


def test_symmetric(rng):
    x, y = rng.normal(size=(25, 40)), 2 + rng.normal(size=(90, 40))
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)


def test_order_of_samples_and_of_features_does_not_matter(rng):
    x, y = rng.normal(size=(50, 8)) ** 2, rng.normal(size=(60, 8))
    samples, features = rng.permutation(50), rng.permutation(8)
    reference = reference_of(y)
    plain, shuffled = frechet_distance(x, reference), frechet_distance(x[samples], reference)
    assert shuffled.value == pytest.approx(plain.value, rel=1e-12)
    np.testing.assert_allclose(shuffled.influence, plain.influence[samples], rtol=1e-8, atol=1e-10)
    assert distance(x[:, features], y[:, features]) == pytest.approx(plain.value, rel=1e-12)


def test_shift_adds_its_square_and_scale_multiplies_by_its_square(rng):
    x, y = rng.normal(size=(50, 8)) ** 2, rng.normal(size=(60, 8))
    assert distance(y + 3, y) == pytest.approx(8 * 9, rel=1e-9)
    assert distance(x + 5, y + 5) == pytest.approx(distance(x, y), rel=1e-10)
    assert distance(7 * x, 7 * y) == pytest.approx(49 * distance(x, y), rel=1e-10)


def test_both_sides_of_the_gram_matrix_give_the_same(rng):
    """Zero columns push d above n and change nothing: the n x n form must find what the d x d did."""
    x, y = rng.normal(size=(30, 10)) ** 2, rng.normal(size=(50, 10))
    wide_x, wide_y = np.pad(x, ((0, 0), (0, 90))), np.pad(y, ((0, 0), (0, 90)))
    narrow = frechet_distance(x, reference_of(y))
    wide = frechet_distance(wide_x, reference_of(wide_y))
    # full-rank reference in the padded space: now y has more rank than x has samples
    noise = np.pad(rng.normal(size=(50, 90)), ((0, 0), (10, 0)))
    lifted = frechet_distance(wide_x, reference_of(wide_y + 1e-9 * noise))
    assert wide.value == pytest.approx(narrow.value, rel=1e-9)
    assert lifted.value == pytest.approx(narrow.value, rel=1e-7)
    np.testing.assert_allclose(wide.influence, narrow.influence, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("n", "d", "m"), [(30, 8, 50), (12, 40, 60), (12, 40, 20), (40, 20, 15), (3, 4, 30), (21, 20, 60)]
)
def test_influence_is_the_jackknife(rng, n, d, m):
    x, reference = rng.normal(size=(n, d)) * 1.3 + 0.2, reference_of(rng.normal(size=(m, d)))
    without = np.array([frechet_distance(np.delete(x, i, axis=0), reference).value for i in range(n)])
    expected = (n - 1) * (without.mean() - without)
    np.testing.assert_allclose(
        frechet_distance(x, reference).influence, expected, atol=2e-7 * np.abs(expected).max()
    )


def test_influence_is_the_derivative_when_samples_are_many(rng):
    """Weighting a sample up moves the distance by influence / n: the definition of influence."""
    n, i, step = 4000, 7, 1e-3
    x, reference = rng.normal(size=(n, 4)) ** 2, reference_of(rng.normal(size=(500, 4)))

    def weighted(extra: float) -> float:
        w = np.full(n, 1.0)
        w[i] += extra
        w /= w.sum()
        mean = w @ x
        s = ((x - mean) * w[:, None]).T @ (x - mean)
        r = reference.factor
        root = np.sqrt(np.clip(np.linalg.eigvalsh(r @ s @ r.T), 0, None)).sum()
        return float(np.square(mean - reference.mean).sum() + np.trace(s) + reference.trace - 2 * root)

    slope = (weighted(step) - weighted(-step)) / (2 * step)
    assert frechet_distance(x, reference).influence[i] / n == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize(("n", "d"), [(64, 8), (64, 32), (64, 256), (500, 32)])
def test_standard_error_is_the_spread_over_data_sets(n, d):
    rng = np.random.default_rng(n + d)
    factor = spectrum(rng, d)
    reference = frechet_reference(Gaussian(np.zeros(d), factor @ factor.T, 100_000))
    shift = 0.3 * factor @ rng.normal(size=d)
    estimates = [
        frechet_distance(1.2 * rng.normal(size=(n, d)) @ factor.T + shift, reference) for _ in range(400)
    ]
    spread = np.std([e.value for e in estimates], ddof=1)
    claimed = np.sqrt(np.mean([standard_error(e.influence) ** 2 for e in estimates]))
    assert 0.9 * spread < claimed < 1.2 * spread


def test_few_samples_in_many_dimensions_are_cheap(rng):
    """Only the n x n problem may be solved: the d x d one takes many seconds."""
    x = rng.normal(size=(32, 3000))
    reference = FrechetReference(np.zeros(3000), np.eye(3000), 3000.0, 100_000)
    start = time.process_time()
    estimate = frechet_distance(x, reference)
    assert time.process_time() - start < 1
    nuclear = np.linalg.svd((x - x.mean(axis=0)) / np.sqrt(31), compute_uv=False).sum()
    expected = np.square(x.mean(axis=0)).sum() + x.var(axis=0, ddof=1).sum() + 3000 - 2 * nuclear
    assert estimate.value == pytest.approx(expected, rel=1e-9)


def test_two_samples_are_enough(rng):
    estimate = frechet_distance(rng.normal(size=(2, 3)), reference_of(rng.normal(size=(9, 3))))
    assert np.isfinite(estimate.value)
    assert np.isfinite(estimate.influence).all()


def test_features_without_any_reference_variance_are_finite(rng):
    """Reference and samples vary in different directions: the root is zero and there is nothing to invert."""
    x, y = np.zeros((2, 20, 2))
    x[:, 0], y[:, 1] = rng.normal(size=(2, 20))
    estimate = frechet_distance(x, reference_of(y))
    assert estimate.value == pytest.approx(
        x.var(axis=0, ddof=1).sum() + y.var(axis=0, ddof=1).sum() + 0, abs=0.5
    )
    assert np.isfinite(estimate.influence).all()


def test_half_precision_features_are_widened_first(rng):
    x, y = rng.normal(size=(30, 6)).astype(np.float16), rng.normal(size=(40, 6)).astype(np.float16)
    assert distance(300 * x, y) == distance((300 * x).astype(np.float64), y.astype(np.float64))
