"""The Frechet distance without its small-sample bias: jackknife and extrapolation."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics.frechet import (
    FrechetReference,
    Gaussian,
    frechet_debiased,
    frechet_distance,
    frechet_reference,
    gaussian,
)
from sd2eval.metrics.frechet_infinity import frechet_infinity
from sd2eval.statistics import standard_error

LIMITS = {"debiased": frechet_debiased, "infinity": frechet_infinity}


def standard_normal(d: int) -> FrechetReference:
    return frechet_reference(Gaussian(np.zeros(d), np.eye(d), 100_000))


@pytest.mark.parametrize(("n", "d"), [(12, 4), (9, 30)], ids=["more samples", "more dimensions"])
def test_debiased_is_quenouilles_formula(rng, n, d):
    x, reference = rng.normal(size=(n, d)) * 1.3 + 0.2, frechet_reference(gaussian(rng.normal(size=(40, d))))
    without = [frechet_distance(np.delete(x, i, axis=0), reference).value for i in range(n)]
    plain = frechet_distance(x, reference)
    found = frechet_debiased(x, reference)
    assert found.value == pytest.approx(n * plain.value - (n - 1) * np.mean(without), rel=1e-7)
    np.testing.assert_allclose(found.influence, plain.influence, atol=1e-9 * np.abs(plain.influence).max())


@pytest.mark.parametrize("name", LIMITS)
def test_centred_on_the_populations_distance(name):
    """N(0.5, 1.44 I) against N(0, I): 8 x 0.25 + 8 x 0.04 = 2.32, the plain distance being 0.09 too high."""
    rng, reference = np.random.default_rng(8), standard_normal(8)
    samples = [1.2 * rng.normal(size=(150, 8)) + 0.5 for _ in range(400)]
    values = np.array([LIMITS[name](x, reference).value for x in samples])
    plain = np.array([frechet_distance(x, reference).value for x in samples])
    error = values.std() / 20
    assert abs(values.mean() - 2.32) < 3 * error
    assert plain.mean() - 2.32 > 5 * error
    claimed = np.sqrt(np.mean([standard_error(LIMITS[name](x, reference).influence) ** 2 for x in samples]))
    assert 0.9 < claimed / values.std(ddof=1) < 1.2


def test_infinity_is_the_intercept_of_a_line(rng):
    """Through three sizes that NumPy's own least squares fits, pieces taken in the documented order."""
    x, reference = rng.normal(size=(40, 3)) + 0.3, standard_normal(3)
    order = np.random.default_rng(5).permutation(40)
    points = []
    for count in (1, 2, 3):
        pieces = np.array_split(order, count)
        values = [frechet_distance(x[piece], reference).value for piece in pieces]
        points.append((np.mean([1 / len(piece) for piece in pieces]), np.mean(values)))
    intercept = np.polynomial.Polynomial.fit(*np.transpose(points), deg=1).convert().coef[0]
    assert frechet_infinity(x, reference, parts=3, seed=5).value == pytest.approx(intercept, rel=1e-10)


def test_infinity_influence_is_the_change_without_a_sample():
    rng, reference = np.random.default_rng(2), standard_normal(3)
    x, parts, seed = rng.normal(size=(90, 3)) ** 2, 2, 1
    order = np.random.default_rng(seed).permutation(90)
    weights = np.array([2.0, -1.0])  # of sizes n and n / 2: the line's value at 1/N = 0

    def without(i: int) -> float:
        halves = [piece[piece != i] for piece in np.array_split(order, 2)]
        whole = frechet_distance(np.delete(x, i, axis=0), reference).value
        return float(weights @ [whole, np.mean([frechet_distance(x[h], reference).value for h in halves])])

    values = np.array([without(i) for i in range(90)])
    expected = 89 * (values.mean() - values)
    found = frechet_infinity(x, reference, parts, seed).influence
    np.testing.assert_allclose(found - found.mean(), expected, atol=0.05 * np.abs(expected).max())


def test_infinity_is_repeatable_and_its_seed_counts(rng):
    x, reference = rng.normal(size=(60, 4)), standard_normal(4)
    first = frechet_infinity(x, reference, seed=3)
    again = frechet_infinity(x, reference, seed=3)
    assert first.value == again.value != frechet_infinity(x, reference, seed=4).value
    np.testing.assert_array_equal(first.influence, again.influence)


def test_infinity_agrees_with_the_papers_design(rng):
    """15 random subsets from n / 2 to n and a fitted line, averaged over shuffles: the same limit."""
    x, reference = 1.2 * rng.normal(size=(600, 6)) + 0.2, standard_normal(6)
    sizes = np.linspace(300, 600, 15).astype(int)

    def paper() -> float:
        values = [frechet_distance(rng.permutation(x)[:size], reference).value for size in sizes]
        return float(np.polynomial.Polynomial.fit(1 / sizes, values, deg=1).convert().coef[0])

    theirs = np.array([paper() for _ in range(20)])
    ours = frechet_infinity(x, reference).value
    assert abs(ours - theirs.mean()) < 3 * theirs.std() / np.sqrt(20) + 0.01


@pytest.mark.parametrize("name", LIMITS)
def test_shift_and_scale(name, rng):
    x, reference = rng.normal(size=(60, 4)), standard_normal(4)
    larger = FrechetReference(np.full(4, 2.0), 3 * reference.factor, 9 * reference.trace, 100_000)
    plain, moved = LIMITS[name](x, reference), LIMITS[name](3 * x + 2, larger)
    assert moved.value == pytest.approx(9 * plain.value, rel=1e-9)
    np.testing.assert_allclose(moved.influence, 9 * plain.influence, rtol=1e-7, atol=1e-9)


def test_debiased_is_blind_to_order(rng):
    x, order, reference = rng.normal(size=(30, 4)), rng.permutation(30), standard_normal(4)
    plain, shuffled = frechet_debiased(x, reference), frechet_debiased(x[order], reference)
    assert shuffled.value == pytest.approx(plain.value, rel=1e-10)
    np.testing.assert_allclose(shuffled.influence, plain.influence[order], rtol=1e-8, atol=1e-10)


def test_too_few_samples_are_refused(rng):
    reference = standard_normal(2)
    with pytest.raises(InputError, match="removing the bias needs at least 3 rows, got 2"):
        frechet_debiased(rng.normal(size=(2, 2)), reference)
    with pytest.raises(InputError, match="3 sizes need at least 9 rows, got 8"):
        frechet_infinity(rng.normal(size=(8, 2)), reference)
    with pytest.raises(InputError, match="at least 2 sizes, got 1"):
        frechet_infinity(rng.normal(size=(8, 2)), reference, parts=1)
