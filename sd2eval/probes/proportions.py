"""Rates and shares of what a component saw, with intervals, and corrected for what it gets wrong.

Pictures of one group (captions of one image, wordings of one template) are not independent. Every interval
here is that of the *effective* number of pictures: as many independent ones as have the same standard error.
Intervals have 95% unless `level` says otherwise; their quantile is Student's t with one degree of freedom
less than there are groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.statistics import Interval, interval, standard_error

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Share:
    """An estimate between 0 and 1 (an entropy: 0 and its largest), its standard error and its interval."""

    value: float
    stderr: float
    low: float
    high: float
    n: int
    """Pictures."""
    effective: float
    """Independent pictures that would have the same standard error."""
    groups: int
    """Independent groups of pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often a component was right about pictures whose truth is known."""

    hits: float
    """It said yes where the truth was yes."""
    positives: float
    false_alarms: float
    """It said yes where the truth was no."""
    negatives: float

    @property
    def sensitivity(self) -> float:
        """Share of the positives that it finds."""
        return self.hits / self.positives

    @property
    def specificity(self) -> float:
        """Share of the negatives that it leaves alone."""
        return 1 - self.false_alarms / self.negatives

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1: 1 of a perfect component, 0 of a coin (Youden 1950)."""
        return self.sensitivity + self.specificity - 1

    @property
    def error(self) -> float:
        """Mean of its two error rates."""
        return (1 - self.youden) / 2


def wilson(value: float, n: float, level: float = 0.95, dof: int | None = None) -> Interval:
    """Return the score interval of a rate (Wilson 1927): it never leaves 0..1, and has a width at 0 and 1.

    (p + q^2 / 2n -+ q sqrt(p (1 - p) / n + q^2 / 4n^2)) / (1 + q^2 / n), with q the quantile of `level`.

    Args:
        value: the rate p, 0..1.
        n: independent observations, not necessarily a whole number.
        level: how often such intervals hold the truth.
        dof: degrees of freedom of Student's t; None takes the normal quantile.
    """
    q = quantile(level, dof)
    middle = value + q * q / (2 * n)
    reach = q * math.sqrt(value * (1 - value) / n + (q / (2 * n)) ** 2)
    low, high = ((middle + sign * reach) / (1 + q * q / n) for sign in (-1, 1))
    return Interval(0.0 if value <= 0 else max(low, 0.0), 1.0 if value >= 1 else min(high, 1.0))


def quantile(level: float, dof: int | None = None) -> float:
    """Return how many standard errors an interval of a level reaches to each side."""
    return interval(0.0, 1.0, level, dof).high


def rate(found: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95) -> Share:
    """Return the share of pictures that have a property: Wilson's interval at the effective number.

    With s the standard error clustered by group and s0 the one without groups, the effective number is
    n (s0 / s)^2, at most n (Korn and Graubard 1998). Where all or no pictures have the property, groups are
    taken as one observation each.

    Args:
        found: bool [n], n >= 2.
        groups: labels [n] of what belongs together; None: each picture is its own.
        level: of the interval.

    Raises:
        InputError: fewer than two pictures or groups.
    """
    values = _checked(found)
    value = float(values.mean())
    effective, count = effective_number(values, groups)
    ends = wilson(value, effective, level, count - 1)
    stderr = math.sqrt(value * (1 - value) / max(effective - 1, 1))
    return Share(value, stderr, ends.low, ends.high, len(values), effective, count)


def effective_number(values: ArrayLike, groups: ArrayLike | None = None) -> tuple[float, int]:
    """Return the effective number of values, float [n] or [n, K], and the number of their groups.

    Of several columns, such as one per category, the standard errors are added up as squares.
    """
    columns = np.asarray(values, dtype=np.float64)
    columns = columns.reshape(len(columns), -1)
    n = len(columns)
    if groups is None:
        return float(n), n
    count = len(np.unique(np.asarray(groups)))
    centred = columns - columns.mean(axis=0)
    alone = math.fsum(standard_error(column) ** 2 for column in centred.T)
    together = math.fsum(standard_error(column, groups) ** 2 for column in centred.T)
    if alone == 0:
        return float(count), count
    return (float(n) if together <= alone else n * alone / together), count


def corrected(share: Share, confusion: Confusion, level: float = 0.95, *, clip: bool = True) -> Share:
    """Return the true rate behind what a component saw (Rogan and Gladen 1978).

    (p + specificity - 1) / (sensitivity + specificity - 1). The interval is that of Lang and Reiczigel
    (2014), in which the numbers of the confusion are as uncertain as they are.

    Args:
        share: what `rate` gave.
        confusion: measured on other pictures, whose truth is known.
        level: of the interval.
        clip: whether a value below 0 or above 1 becomes 0 or 1. Clipped values are biased near the ends.

    Raises:
        InputError: the component is no better than a coin.
    """
    if confusion.youden <= 0:
        raise InputError("a component that is right as often as a coin cannot be corrected for")
    value = (share.value + confusion.specificity - 1) / confusion.youden
    variance = _variance(value, share, confusion)
    ends = _lang_reiczigel(share, confusion, quantile(level, share.groups - 1), quantile(level))
    if clip:
        value = min(max(value, 0.0), 1.0)
    low, high = min(ends.low, max(value, 0.0)), max(ends.high, min(value, 1.0))
    return replace(share, value=value, stderr=math.sqrt(variance), low=low, high=high)


def _variance(value: float, share: Share, confusion: Confusion) -> float:
    """Return the variance of a corrected rate by the delta method: of the rate, and of the confusion."""
    rates = ((confusion.sensitivity, confusion.positives), (confusion.specificity, confusion.negatives))
    of_sensitivity, of_specificity = (part * (1 - part) / count for part, count in rates)
    spread = share.stderr**2 + value**2 * of_sensitivity + (1 - value) ** 2 * of_specificity
    return spread / confusion.youden**2


def _lang_reiczigel(share: Share, confusion: Confusion, q: float, z: float) -> Interval:
    """Return the interval of a corrected rate: Agresti-Coull's counts, and a shift of the middle.

    With n' = n + q^2, p' = (n p + q^2 / 2) / n', and one success and one failure added to each of the two
    parts of the confusion (marked ' as well), P' = (p' + Sp' - 1) / (Se' + Sp' - 1). The interval is P' + d
    -+ q sqrt(p' (1 - p') / n' + P'^2 v(Se') + (1 - P')^2 v(Sp')) / (Se' + Sp' - 1), v(x) = x (1 - x) / n'_x,
    d = 2 z^2 (P' v(Se') - (1 - P') v(Sp')), within 0..1. q is Student's quantile and z the normal one: the
    shift is for the confusion, and has nothing to do with how few groups the share is of. A middle outside
    0..1 is brought to its end first, so that no interval is without a width.
    """
    n = share.effective + q * q
    p = (share.effective * share.value + q * q / 2) / n
    positives, negatives = confusion.positives + 2, confusion.negatives + 2
    sensitivity = (confusion.hits + 1) / positives
    specificity = 1 - (confusion.false_alarms + 1) / negatives
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return Interval(0.0, 1.0)
    of_sensitivity = sensitivity * (1 - sensitivity) / positives
    of_specificity = specificity * (1 - specificity) / negatives
    middle = (p + specificity - 1) / youden
    spread = p * (1 - p) / n + middle**2 * of_sensitivity + (1 - middle) ** 2 * of_specificity
    shift = 2 * z * z * (middle * of_sensitivity - (1 - middle) * of_specificity)
    reach = q * math.sqrt(spread) / youden
    middle = min(max(middle + shift, 0.0), 1.0)
    return Interval(max(middle - reach, 0.0), min(middle + reach, 1.0))


def codes_of(labels: Sequence[str], categories: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each label among the categories."""
    places = {category: place for place, category in enumerate(categories)}
    for one in labels:
        if one not in places:
            raise InputError(f"'{one}' is none of the categories {', '.join(categories)}")
    return np.array([places[one] for one in labels], dtype=np.int64)


def _checked(found: ArrayLike) -> Array:
    values = np.asarray(found)
    if values.ndim != 1 or len(values) < 2 or not np.isin(values, (0, 1)).all():
        raise InputError(f"a rate needs at least 2 truth values, got {values.dtype} {list(values.shape)}")
    return values.astype(np.float64)
