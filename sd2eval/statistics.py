"""Uncertainty of an estimate from the influence of each sample: one mechanism for every metric.

A metric returns its value together with one number per sample, how much that sample moved the value. The
spread of those numbers is the standard error; adding them up by image before squaring makes it robust to
several captions sharing an image; subtracting them pairwise makes it the standard error of a paired
difference. Nothing is resampled, so a Frechet distance keeps its meaning (its bootstrap is biased upward).

A test divides a difference by its standard error and reads Student's t with one degree of freedom less than
there are independent groups. SciPy is imported where it is used: most readers of a run need none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def average(estimates: Sequence[Estimate], used: NDArray[np.bool_]) -> Estimate:
    """Return the mean of several estimates on overlapping samples, with one influence per sample.

    An image that moves several of them, such as the same caption at every guidance scale, is then still one
    observation, and `standard_error` of the result accounts for their dependence.

    Args:
        estimates: K of them.
        used: shape [K, N]; row k marks the samples of estimate k, as many as it has influences.

    Returns:
        The estimate on the samples that any of them used, in their order.

    Raises:
        InputError: no estimates, or a row that does not fit its estimate.
    """
    if len(estimates) != len(used) or len(used) == 0:
        raise InputError(f"expected a row of used samples per estimate, got {len(used)} for {len(estimates)}")
    influence = np.zeros(used.shape)
    kept = used.any(axis=0)
    for row, estimate, mask in zip(influence, estimates, used, strict=True):
        if estimate.n != mask.sum():
            raise InputError(f"an estimate of {estimate.n} samples is said to have used {mask.sum()}")
        row[mask] = estimate.influence * (kept.sum() / estimate.n)  # an influence is n times an effect
    value = sum(estimate.value for estimate in estimates) / len(estimates)
    return Estimate(value, influence[:, kept].mean(axis=0))


def interval(value: float, stderr: float, level: float = 0.95, dof: int | None = None) -> Interval:
    """Return the interval value -+ q * stderr of confidence `level` (0..1).

    Args:
        value: the estimate.
        stderr: its standard error.
        level: how often such intervals hold the truth.
        dof: degrees of freedom of Student's t, whose quantile is q; None takes the normal one.
    """
    if not 0 < level < 1:
        raise InputError(f"a confidence level lies between 0 and 1, got {level}")
    part = (1 + level) / 2
    reach = (NormalDist().inv_cdf(part) if dof is None else _t_quantile(part, dof)) * stderr
    return Interval(value - reach, value + reach)


def p_value(value: float, stderr: float, dof: int) -> float:
    """Return the two-sided p-value of "the true value is 0", by Student's t.

    Without any spread there is nothing to estimate: 1 if the value is 0 as well, else 0.
    """
    from scipy.special import stdtr

    if stderr == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stdtr(dof, -abs(value) / stderr))


def detectable(stderr: float, dof: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the size that a true value needs to be called different from 0 with probability `power`.

    (t_(1 - alpha/2) + t_power) * stderr, both quantiles of Student's t (Bloom 1995).

    Args:
        stderr: of the estimate, in its unit.
        dof: degrees of freedom.
        alpha: the p-value below which it is called different.
        power: 0..1.
    """
    return (_t_quantile(1 - alpha / 2, dof) + _t_quantile(power, dof)) * stderr


def holm(p_values: ArrayLike) -> Array:
    """Return p-values corrected for their number: at 5%, at most 5% of families have any false rejection.

    Step-down Bonferroni (Holm 1979): the k-th smallest of m is multiplied by m - k + 1, never decreasing;
    valid under any dependence.

    Args:
        p_values: shape [m], each 0..1.
    """
    p, order, ranks = _sorted(p_values)
    corrected = np.maximum.accumulate(p[order] * (len(p) - ranks + 1))
    return _unsorted(corrected, order)


def benjamini_hochberg(p_values: ArrayLike) -> Array:
    """Return p-values corrected so that of those below 5% at most 5% are false on average.

    Step-up false discovery rate (Benjamini and Hochberg 1995): the k-th smallest of m is multiplied by m / k,
    never increasing from the largest down; valid for independent and positively dependent tests.

    Args:
        p_values: shape [m], each 0..1.
    """
    p, order, ranks = _sorted(p_values)
    corrected = np.minimum.accumulate((p[order] * len(p) / ranks)[::-1])[::-1]
    return _unsorted(corrected, order)


def _sorted(p_values: ArrayLike) -> tuple[Array, NDArray[np.intp], NDArray[np.int_]]:
    """Return the p-values as float64, their ascending order, and the ranks 1..m."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError("p-values are a list of numbers from 0 to 1")
    return p, np.argsort(p, kind="stable"), np.arange(1, len(p) + 1)


def _unsorted(values: Array, order: NDArray[np.intp]) -> Array:
    result = np.empty_like(values)
    result[order] = np.minimum(values, 1.0)
    return result


def _t_quantile(part: float, dof: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, part))


def _group_sums(influence: Array, groups: ArrayLike) -> Array:
    labels: NDArray[Any] = np.asarray(groups)
    if labels.shape != influence.shape:
        raise InputError(f"expected {len(influence)} group labels, one per sample, got shape {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    return np.bincount(index, weights=influence).astype(np.float64)
