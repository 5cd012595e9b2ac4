"""Precision, recall, density and coverage: where samples lie among each other's nearest neighbours.

The support of a set is taken to be the union of balls around its samples, each as large as the distance to
the k-th nearest other sample of the set.

- precision: share of the generated samples inside a ball of the reference; recall: share of the reference
  samples inside a ball of the generated set (Kynkaanniemi et al. 2019, eq. 1 and 2, k = 3). The rim belongs
  to the ball, as in the paper and in torch-fidelity.
- density: mean number of reference balls around a generated sample, divided by k; coverage: share of the
  reference balls that hold a generated sample (Naeem et al. 2020, section 3, k = 5). The rim does not belong
  to the ball, as in the authors' package prdc, so that two identical sets have density 1.

Only ties tell the two conventions apart. The reference is fixed throughout: the uncertainty is that of
drawing other samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_varied_features, require_same_width
from sd2eval.metrics._distances import between, nearest
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

PRECISION_K = 3
DENSITY_K = 5


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourReference:
    """Reference features with the ball around each: the part that is the same for every cell."""

    features: Array
    """Shape [m, d]."""
    squared_radii: Array
    """Shape [m]: squared distance to the k-th nearest other sample."""
    k: int


def neighbour_reference(features: ArrayLike, k: int) -> NeighbourReference:
    """Return the reference with its balls; k is `PRECISION_K` for precision and recall, `DENSITY_K` else.

    Raises:
        InputError: the features are not [m > k, d], not finite, or all rows are identical; k < 1.
    """
    if k < 1:
        raise InputError(f"the number of nearest neighbours is at least 1, got {k}")
    y = as_varied_features(features, "reference features")
    return NeighbourReference(y, nearest(y, k, "reference features")[0][:, -1], k)


def precision(features: ArrayLike, reference: NeighbourReference) -> Estimate:
    """Return the share of the samples that lie in a ball of the reference, rim included.

    A mean of one yes or no per sample, so the influences are exact and the value has no bias.

    Args:
        features: of the generated images, shape [n, d], n >= 2.
        reference: of the same extractor.

    Returns:
        Value in 0..1.

    Raises:
        InputError: see `neighbour_reference`; or d differs from the reference's.
    """
    x = _features(features, reference)
    inside = np.zeros(len(x))
    for rows, distances in between(x, reference.features, reference.squared_radii):
        inside[rows] = (distances <= reference.squared_radii).any(axis=1)
    return _mean(inside)


def density(features: ArrayLike, reference: NeighbourReference) -> Estimate:
    """Return the mean number of reference balls around a sample, rim excluded, divided by k.

    A mean of one number per sample, so the influences are exact and the value has no bias.

    Args:
        features: of the generated images, shape [n, d], n >= 2.
        reference: of the same extractor.

    Returns:
        Value >= 0; about 1 for samples of the reference's distribution, and not bounded by 1.

    Raises:
        InputError: see `neighbour_reference`; or d differs from the reference's.
    """
    x = _features(features, reference)
    counts = np.zeros(len(x))
    for rows, distances in between(x, reference.features, reference.squared_radii):
        counts[rows] = (distances < reference.squared_radii).sum(axis=1)
    return _mean(counts / reference.k)


def coverage(features: ArrayLike, reference: NeighbourReference) -> Estimate:
    """Return the share of the reference balls that hold a sample, rim excluded, with the exact jackknife.

    Without sample i the balls are empty that hold nothing but i, so the influence is their share times n - 1.
    Its standard error is 2-50% too large, the more the fuller the balls are. The value grows with n: compare
    equal n only.

    Args:
        features: of the generated images, shape [n, d], n >= 2.
        reference: of the same extractor.

    Returns:
        Value in 0..1.

    Raises:
        InputError: see `neighbour_reference`; or d differs from the reference's.
    """
    x = _features(features, reference)
    held = np.zeros(len(reference.features), dtype=np.int64)
    holder = np.zeros(len(held), dtype=np.intp)  # the last sample found in each ball, or the only one
    for rows, distances in between(x, reference.features, reference.squared_radii):
        inside = distances < reference.squared_radii
        found = inside.any(axis=0)
        held += inside.sum(axis=0)
        holder[found] = inside.argmax(axis=0)[found] + rows.start
    alone = np.bincount(holder[held == 1], minlength=len(x))
    return _jackknife(float((held > 0).mean()), alone / len(held))


def recall(features: ArrayLike, reference: NeighbourReference) -> Estimate:
    """Return the share of the reference samples that lie in a ball of the generated set, rim included.

    The influences are the exact jackknife: without sample i its ball is gone, and the balls of those that had
    it among their k nearest reach to the next neighbour. Their standard error is about twice too large,
    because the value hangs on single samples. It grows with n: compare equal n only.

    Args:
        features: of the generated images, shape [n, d], n >= k + 2.
        reference: of the same extractor; its k is used for the balls of the samples.

    Returns:
        Value in 0..1.

    Raises:
        InputError: see `neighbour_reference`; d differs from the reference's; fewer than k + 2 samples.
    """
    x = _features(features, reference)
    distances, neighbours = nearest(x, reference.k + 1, "features")
    radii, next_radii = distances[:, -2], distances[:, -1]
    found, lost = 0, np.zeros(len(x))
    for _, distances in between(reference.features, x, radii, next_radii):
        inside = distances <= radii
        counts = inside.sum(axis=1)
        found += int((counts > 0).sum())
        open_rows = counts <= 1  # those that one sample can gain or lose
        grown = (distances[open_rows] <= next_radii) & ~inside[open_rows]
        lost += _lost_without(inside[open_rows], grown, neighbours[:, :-1])
    count = len(reference.features)
    return _jackknife(found / count, lost / count)


def _lost_without(inside: NDArray[np.bool_], grown: NDArray[np.bool_], neighbours: Indices) -> Array:
    """Return for each sample how many reference samples leave the balls without it, less those that enter.

    Args:
        inside: which balls hold a reference sample, [m, n]; at most one each.
        grown: which balls would hold it if they reached to the next neighbour, [m, n].
        neighbours: the k nearest samples of each sample, [n, k]; without any of them its ball grows.
    """
    count = len(neighbours)
    row, ball = np.nonzero(grown)
    reached = np.unique((row[:, None] * count + neighbours[ball]).ravel())
    row, without = reached // count, reached % count
    outside: NDArray[np.bool_] = ~np.any(inside, axis=1)
    gained = np.bincount(without[outside[row]], minlength=count)
    holder: Indices = np.where(outside, -1, inside.argmax(axis=1))
    kept = np.bincount(without[holder[row] == without], minlength=count)
    lost = np.bincount(holder[~outside], minlength=count)
    moved: Array = (lost - kept - gained).astype(np.float64)
    return moved


def _features(features: ArrayLike, reference: NeighbourReference) -> Array:
    x = as_varied_features(features, "features")
    require_same_width(x, reference.features.shape[1], "features", "the reference")
    return x


def _mean(values: Array) -> Estimate:
    value = float(values.mean())
    return Estimate(value, values - value)


def _jackknife(value: float, lost: Array) -> Estimate:
    """Return the estimate of which `lost` [n] goes without each sample."""
    return Estimate(value, (len(lost) - 1) * (lost - lost.mean()))
