"""Uncertainty of an estimate from the influence of each sample: one mechanism for every metric.

A metric returns its value together with one number per sample, how much that sample moved the value. The
spread of those numbers is the standard error; adding them up by image before squaring makes it robust to
several captions sharing an image; subtracting them pairwise makes it the standard error of a paired
difference. Nothing is resampled, so a Frechet distance keeps its meaning (its bootstrap is biased upward).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A metric's value on n samples, and what each sample contributed to its uncertainty."""

    value: float
    influence: Array
    """Shape [n], mean zero, in the metric's unit: n x (effect of sample i on the value), to first order."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.influence)


class Difference(NamedTuple):
    """A paired difference of two estimates with its standard error, in the metric's unit."""

    value: float
    stderr: float


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


def standard_error(influence: Array, groups: ArrayLike | None = None) -> float:
    """Return the standard error of an estimate, robust to dependence inside groups.

    With G groups and s_g the summed influence of group g: sqrt(G / (G - 1) * sum of s_g^2) / n, the sandwich
    estimator (Liang and Zeger 1986). Without groups each sample is its own: the usual sd / sqrt(n).

    Args:
        influence: shape [n], mean zero, as in `Estimate.influence`.
        groups: shape [n], any labels; samples with the same label (captions of one image) may be dependent.

    Raises:
        InputError: fewer than two groups (nothing to estimate a spread from), or labels of another length.
    """
    sums = influence if groups is None else _group_sums(influence, groups)
    count = len(sums)
    if count < 2:
        raise InputError(f"a standard error needs at least 2 independent groups of samples, got {count}")
    return float(np.sqrt(count / (count - 1) * np.square(sums).sum()) / len(influence))


def difference(a: Estimate, b: Estimate, groups: ArrayLike | None = None) -> Difference:
    """Return a - b and its standard error, for two estimates whose sample i has the same caption and noise.

    Raises:
        InputError: the estimates have different numbers of samples, so they are not paired.
    """
    if a.n != b.n:
        raise InputError(f"a paired difference needs the same samples on both sides, got {a.n} and {b.n}")
    return Difference(a.value - b.value, standard_error(a.influence - b.influence, groups))


def interval(value: float, stderr: float, level: float = 0.95) -> Interval:
    """Return the normal interval value -+ z * stderr of confidence `level` (0..1)."""
    if not 0 < level < 1:
        raise InputError(f"a confidence level lies between 0 and 1, got {level}")
    reach = NormalDist().inv_cdf((1 + level) / 2) * stderr
    return Interval(value - reach, value + reach)


def _group_sums(influence: Array, groups: ArrayLike) -> Array:
    labels: NDArray[Any] = np.asarray(groups)
    if labels.shape != influence.shape:
        raise InputError(f"expected {len(influence)} group labels, one per sample, got shape {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    return np.bincount(index, weights=influence).astype(np.float64)
