"""Kernel distance between two sets of features (KID, when the features are Inception's).

The unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)^3 (Binkowski et al. 2018,
section 3), as the U-statistic of all samples instead of an average over random subsets: no seed, and no
smaller variance is possible from the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.metrics._checks import as_varied_features, require_same_width
from sd2eval.metrics._pairs import means_between, sums_within
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class KernelReference:
    """Reference features with their own mean kernel, the term that is the same for every cell."""

    features: Array
    """Shape [m, d], m >= 2."""
    within: float
    """Mean kernel over all pairs of different reference samples."""


def kernel_reference(features: ArrayLike) -> KernelReference:
    """Return the reference features with their mean kernel.

    Raises:
        InputError: the features are not [m >= 2, d], not finite, or all rows are identical.
    """
    y = as_varied_features(features, "reference features")
    return KernelReference(y, float(sums_within(y, _cubic).mean() / (len(y) - 1)))


def kernel_distance(features: ArrayLike, reference: KernelReference) -> Estimate:
    """Return the unbiased squared MMD of features to a reference, with each sample's influence.

    The influence is twice the first-order Hoeffding projection. Where the two sets are nearly equal the
    projection vanishes and its estimate keeps some noise: the standard error is then too large, never too
    small. The reference is taken as fixed, as in `frechet_distance`.

    Args:
        features: shape [n, d], n >= 2.
        reference: of the same extractor.

    Returns:
        Value without unit; unbiased, so it can be slightly negative when the sets agree.

    Raises:
        InputError: see `kernel_reference`; or d differs from the reference's.
    """
    x = as_varied_features(features, "features")
    require_same_width(x, reference.features.shape[1], "features", "the reference")
    own = sums_within(x, _cubic) / (len(x) - 1)
    cross = means_between(x, reference.features, _cubic)
    influence = 2 * (own - cross)
    return Estimate(float(own.mean() - 2 * cross.mean() + reference.within), influence - influence.mean())


def _cubic(x: Array, y: Array) -> Array:
    base = x @ y.T / x.shape[1] + 1
    cube: Array = base * base * base
    return cube
