"""Frechet distance between Gaussians fitted to features (FID, when the features are Inception's).

d^2 = |mu - mu_r|^2 + tr S + tr S_r - 2 tr (S_r^(1/2) S S_r^(1/2))^(1/2) (Dowson and Landau 1982; for FID
Heusel et al. 2017). With S = A^T A and S_r = B^T B the last trace is the sum of the singular values of A B^T,
so only a symmetric eigenproblem of the smaller side is solved, exact in both cases: n x n for n samples in
more than n dimensions. All in float64: float32 moves a FID by up to 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_varied_features, require_same_width
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]

# Trapezoid rule on a logarithmic axis. The integrand is analytic up to pi/2 off that axis, so the error is
# about exp(-pi^2 / step) = 2e-11; the ends cut off 1e-11 of the smallest and largest singular value.
_STEP = 0.4
_REACH = 1e11


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """Moments of a set of features."""

    mean: Array
    """Shape [d]."""
    covariance: Array
    """Shape [d, d], unbiased (divided by n - 1)."""
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class FrechetReference:
    """Reference moments, factorised once and used for every cell."""

    mean: Array
    """Shape [d]."""
    factor: Array
    """Shape [rank, d]: B with B^T B = the covariance."""
    trace: float
    """Trace of the covariance."""
    n: int


def gaussian(features: ArrayLike) -> Gaussian:
    """Return mean and unbiased covariance of features [n, d], in float64.

    Raises:
        InputError: the features are not [n >= 2, d], not finite, or all rows are identical.
    """
    x = as_varied_features(features, "features")
    mean = x.mean(axis=0)
    centred = x - mean
    return Gaussian(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_reference(moments: Gaussian) -> FrechetReference:
    """Return the reference with a factor of its covariance: the part that is the same for every cell."""
    values, vectors = np.linalg.eigh(moments.covariance)
    keep = _above_noise(values)
    factor = np.sqrt(values[keep])[:, None] * vectors[:, keep].T
    return FrechetReference(moments.mean, factor, float(np.trace(moments.covariance)), moments.n)


def frechet_distance(features: ArrayLike, reference: FrechetReference) -> Estimate:
    """Return the (squared) Frechet distance of features to a reference, with each sample's influence.

    The influence is the exact jackknife, (n - 1) x (mean leave-one-out value - value without sample i), for
    the price of one matrix product (see `_trace_lost`). The derivative of the distance would be the more
    usual choice, but it overstates the standard error by 20-35% when n is not much larger than d. The
    reference is taken as fixed: the standard error is that of drawing other prompts, not of another reference
    set.

    The value is biased upward, the more the smaller n is, as every plug-in Frechet distance: compare equal n
    only, and read it together with KID.

    Args:
        features: shape [n, d], n >= 2.
        reference: of the same extractor.

    Returns:
        Value >= 0 in squared feature units.

    Raises:
        InputError: see `gaussian`; or d differs from the reference's.
    """
    x = _checked(features, reference)
    parts = _centre(x, reference)
    if len(x) == 2:  # one sample has no covariance, so there is no leave-one-out value: use the derivative
        moved = 2 * parts.centred @ parts.shift + parts.squares - parts.weights @ parts.singular
    else:
        moved = -(len(x) - 1) * _values_without(parts, reference)
    # A squared distance is never negative; only round-off of the traces makes it so, for near-equal sets.
    return Estimate(max(_value(parts, reference), 0.0), moved - moved.mean())


def frechet_debiased(features: ArrayLike, reference: FrechetReference) -> Estimate:
    """Return the Frechet distance with its bias removed to first order, with each sample's influence.

    n x value - (n - 1) x mean leave-one-out value, the jackknife of Quenouille (1956), which takes away the
    part of the bias that falls as 1/n. It estimates what `frechet_infinity` extrapolates to, without subsets
    or a seed, and its spread is no larger than that of the plain distance. It needs n well above the number
    of dimensions that vary: at n = 3 d what is left of the bias is small against the standard error, below
    n = d it is useless.

    Args:
        features: shape [n, d], n >= 3.
        reference: of the same extractor.

    Returns:
        Value in squared feature units; it can be negative when the sets nearly agree.

    Raises:
        InputError: see `frechet_distance`; or n = 2.
    """
    x = _checked(features, reference)
    if len(x) < 3:
        raise InputError(f"features: removing the bias needs at least 3 rows, got {len(x)}")
    parts = _centre(x, reference)
    without = _values_without(parts, reference)
    excess = (len(x) - 1) * (float(without.mean()) - _value(parts, reference))
    return Estimate(_value(parts, reference) - excess, (len(x) - 1) * (without.mean() - without))


class _Parts(NamedTuple):
    """What value and leave-one-out values of a set of features are made of."""

    centred: Array
    """Features less their mean, [n, d]."""
    squares: Array
    """Squared length of each row of it, [n]."""
    shift: Array
    """Mean less the reference's, [d]."""
    singular: Array
    """Singular values whose sum is the trace of the matrix root, [r]."""
    weights: Array
    """Squared left singular vectors, [n, r]."""


def _checked(features: ArrayLike, reference: FrechetReference) -> Array:
    x = as_varied_features(features, "features")
    require_same_width(x, len(reference.mean), "features", "the reference")
    return x


def _centre(x: Array, reference: FrechetReference) -> _Parts:
    mean = x.mean(axis=0)
    centred = x - mean
    squares = np.square(centred).sum(axis=1)
    singular, weights = _spectrum(centred @ reference.factor.T / np.sqrt(len(x) - 1))
    return _Parts(centred, squares, mean - reference.mean, singular, weights)


def _value(parts: _Parts, reference: FrechetReference) -> float:
    trace = parts.squares.sum() / (len(parts.squares) - 1)
    return float(parts.shift @ parts.shift + trace + reference.trace - 2 * parts.singular.sum())


def _values_without(parts: _Parts, reference: FrechetReference) -> Array:
    """Return the distance without each sample, [n]; n >= 3."""
    n = len(parts.squares)
    kept = np.sqrt((n - 1) / (n - 2)) * (parts.singular.sum() - _trace_lost(parts.singular, parts.weights))
    shifts = np.square(parts.shift - parts.centred / (n - 1)).sum(axis=1)
    traces = (parts.squares.sum() - n / (n - 1) * parts.squares) / (n - 2)
    values: Array = shifts + traces + reference.trace - 2 * kept
    return values


def _spectrum(y: Array) -> tuple[Array, Array]:
    """Return the non-zero singular values [r] of y [n, k] and its squared left singular vectors [n, r]."""
    tall = len(y) >= y.shape[1]
    values, vectors = np.linalg.eigh(y.T @ y if tall else y @ y.T)
    keep = _above_noise(values)
    singular, vectors = np.sqrt(values[keep]), vectors[:, keep]
    left = y @ vectors / singular if tall else vectors
    return singular, np.square(left)


def root_trace(gram: Array) -> float:
    """Return the trace of the root of a symmetric matrix [k, k] without negative eigenvalues."""
    values = np.asarray(np.linalg.eigvalsh(gram), dtype=np.float64)
    return float(np.sqrt(values[_above_noise(values)]).sum())


def _above_noise(values: Array) -> NDArray[np.bool_]:
    """Mark the ascending eigenvalues above round-off; the root of mere round-off would be a visible error."""
    above: NDArray[np.bool_] = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return above


def _trace_lost(singular: Array, weights: Array) -> Array:
    """Return for each row how much the sum of singular values of y shrinks without it (mean re-centred), [n].

    Leaving row i out turns W = y^T y into W - c y_i y_i^T with c = n / (n - 1). From sqrt(a) = 1/pi int_0^inf
    t^(-1/2) a / (a + t) dt and the matrix determinant lemma, the loss of tr sqrt(W) is

        -1/pi int_0^inf log(1 - c sum_k u_ik^2 s_k^2 / (s_k^2 + v^2)) dv,

    one integral per row that needs only squared singular vectors u_ik^2 (`weights`) and singular values s_k.
    """
    n = len(weights)
    if len(singular) == 0:
        return np.zeros(n)
    nodes = np.exp(np.arange(np.log(singular.min() / _REACH), np.log(singular.max() * _REACH), _STEP))
    share = np.square(singular)[:, None] / (np.square(singular)[:, None] + np.square(nodes))
    c = n / (n - 1)
    # Where v is small the logarithm's argument may be nearly 0 (leaving a row out loses a rank), where v is
    # large nearly 1: each side has its own form without cancellation.
    small = nodes < singular.max()
    rest = np.clip(1 - c * weights.sum(axis=1), 0, None)[:, None]
    logs = np.hstack(
        [
            np.log(rest + c * (weights @ (np.square(nodes[small] / singular[:, None]) * share[:, small]))),
            np.log1p(-c * (weights @ share[:, ~small])),
        ]
    )
    loss: Array = -(logs @ nodes) * _STEP / np.pi
    return loss
