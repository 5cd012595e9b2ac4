"""Kernel distance with a Gaussian kernel between normalised embeddings (CMMD, when they are CLIP's).

The squared maximum mean discrepancy with exp(-|x - y|^2 / (2 sigma^2)), sigma = 10 (Jayasumana et al. 2024,
section 4). Tables show it in thousandths, as the paper does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_varied_features, directions, require_same_width
from sd2eval.metrics._pairs import means_between, sums_within
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]
Estimator = Literal["biased", "unbiased"]

SIGMA = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class ClipReference:
    """Normalised reference embeddings with their own mean kernel, which is the same for every cell."""

    directions: Array
    """Shape [m, d], m >= 2, every row of length 1."""
    within: float
    """Sum of the kernel over all pairs of different reference samples, divided by m (m - 1)."""


def clip_reference(embeddings: ArrayLike) -> ClipReference:
    """Return the reference embeddings, normalised, with their mean kernel.

    Raises:
        InputError: the embeddings are not [m >= 2, d], not finite, one is zero, or all rows are identical.
    """
    y = directions(as_varied_features(embeddings, "reference embeddings"), "reference embeddings")
    return ClipReference(y, float(sums_within(y, _gaussian).mean() / (len(y) - 1)))


def clip_mmd(embeddings: ArrayLike, reference: ClipReference, estimator: Estimator = "biased") -> Estimate:
    """Return the squared MMD of embeddings to a reference, with each sample's influence.

    "biased" averages over all pairs, a sample with itself included, as the paper's code does: it is what CMMD
    means in tables. It is too high by (1 - mean kernel) (1/n + 1/m), some thousandths of 1/n. "unbiased"
    leaves those pairs out. Both have the same influences: twice the Hoeffding projection, the reference being
    fixed, as in `kernel_distance`. The paper's code computes in float32, whose rounding shows in the fourth
    decimal of its thousandths; here all is float64.

    Args:
        embeddings: shape [n, d], n >= 2, of any length: they are normalised first.
        reference: of the same extractor.
        estimator: which mean of the kernel inside a set.

    Returns:
        Value without unit, 0..2 when biased; unbiased it can be slightly negative when the sets agree.

    Raises:
        InputError: see `clip_reference`; d differs from the reference's; another estimator.
    """
    if estimator not in ("biased", "unbiased"):
        raise InputError(f"the estimator of a kernel distance is 'biased' or 'unbiased', got {estimator!r}")
    x = as_varied_features(embeddings, "embeddings")
    require_same_width(x, reference.directions.shape[1], "embeddings", "the reference")
    x = directions(x, "embeddings")
    own = sums_within(x, _gaussian) / (len(x) - 1)
    cross = means_between(x, reference.directions, _gaussian)
    influence = 2 * (own - cross)
    inside = [(float(own.mean()), len(x)), (reference.within, len(reference.directions))]
    if estimator == "biased":
        inside = [(mean + (1 - mean) / count, count) for mean, count in inside]
    value = sum(mean for mean, _ in inside) - 2 * float(cross.mean())
    return Estimate(value, influence - influence.mean())


def _gaussian(x: Array, y: Array) -> Array:
    """Return the kernel of unit vectors, for which |x - y|^2 = 2 - 2 x . y."""
    kernel: Array = np.exp((x @ y.T - 1) / SIGMA**2)
    return kernel
