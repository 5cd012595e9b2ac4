"""Frechet distance extrapolated to infinitely many samples (FID-infinity, when the features are Inception's).

The distance of N samples is biased by about a constant over N; the intercept of a line through distances of
subsets against 1/N has no such bias (Chong and Forsyth 2020, section 3.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_varied_features
from sd2eval.metrics.frechet import FrechetReference, frechet_distance
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]


def frechet_infinity(
    features: ArrayLike, reference: FrechetReference, parts: int = 3, seed: int = 0
) -> Estimate:
    """Return the intercept of subsets' Frechet distances against 1/N, with each sample's influence.

    The samples, once shuffled, are taken whole, cut into two halves, into thirds, ... into `parts` pieces;
    the distances of the pieces of one size are averaged, so every sample counts equally at every size and
    sizes are equally spaced in 1/N. The paper draws 15 overlapping random subsets instead, which estimates
    the same limit with a 30% larger spread. The influence of a sample is the sum of its influences in all its
    pieces, with the weights of the regression, so the standard error includes what the pieces share.

    `frechet_debiased` estimates the same limit from all samples at once and is the better estimator; this one
    is for comparison with published values.

    Args:
        features: shape [n, d], n >= 3 x parts.
        reference: of the same extractor.
        parts: number of sizes, at least 2; the smallest is n / parts and should be well above d.
        seed: of the shuffle; the same seed and samples give the same value.

    Returns:
        Value in squared feature units; it can be negative when the sets nearly agree.

    Raises:
        InputError: see `frechet_distance`; fewer samples than 3 x parts; parts < 2; a piece without variance.
    """
    x = as_varied_features(features, "features")
    if parts < 2:
        raise InputError(f"an extrapolation needs at least 2 sizes, got {parts}")
    if len(x) < 3 * parts:
        raise InputError(f"features: {parts} sizes need at least {3 * parts} rows, got {len(x)}")
    order = np.random.default_rng(seed).permutation(len(x))
    values, inverses = np.zeros(parts), np.zeros(parts)
    influences = np.zeros((parts, len(x)))
    for size in range(parts):
        for piece in np.array_split(order, size + 1):
            estimate = frechet_distance(x[piece], reference)
            values[size] += estimate.value / (size + 1)
            inverses[size] += 1 / len(piece) / (size + 1)
            influences[size, piece] = estimate.influence * len(x) / len(piece) / (size + 1)
    weights = _intercept(inverses)
    return Estimate(float(weights @ values), weights @ influences)


def _intercept(x: Array) -> Array:
    """Return the weights of the ordinates whose sum is the least-squares line's value at 0."""
    weights: Array = np.linalg.pinv(np.stack([np.ones_like(x), x], axis=1))[0]
    return weights
