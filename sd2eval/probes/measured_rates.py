"""Rows about rates: how often a component saw something, corrected for its errors, or no number at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.probes import proportions
from sd2eval.probes.base import Direction, Row, label
from sd2eval.probes.proportions import Confusion
from sd2eval.probes.shares import ClassErrors
from sd2eval.statistics import interval, standard_error

LIMIT = 0.2
"""Largest error of a component (mean of its two error rates) at which a number is given."""
UNMEASURED = "not corrected: the component's errors were not measured"


def rate_row(
    metric: str,
    found: ArrayLike,
    groups: ArrayLike,
    *,
    component: Any,
    errors: Confusion | None,
    part: str = "",
    direction: Direction = "higher",
    unit: str = "share of images",
    limit: float = LIMIT,
    note: str = "",
) -> Row:
    """Return the row of a rate.

    Args:
        metric: its name.
        found: bool [n], what the component said; n >= 2.
        groups: labels [n] of what belongs together.
        component: that said it.
        errors: how often it is right; None or without any picture where that was not measured.
        part: slice of the prompts.
        direction: which way is better.
        unit: of the rate.
        limit: errors above it make the value NaN.
        note: what else is to be said.
    """
    seen = proportions.rate(found, groups)
    row = _row(metric, part, seen.n, direction, unit, component)
    if errors is None or not errors.positives or not errors.negatives:
        said = _joined(note, UNMEASURED)
        return replace(row, value=seen.value, stderr=seen.stderr, low=seen.low, high=seen.high, note=said)
    if not errors.error <= limit:
        return replace(row, error=errors.error, note=_joined(note, _unreliable(errors.error, limit)))
    share = proportions.corrected(seen, errors)
    return replace(
        row,
        value=share.value,
        stderr=share.stderr,
        low=share.low,
        high=share.high,
        error=errors.error,
        note=_joined(note, f"seen in {seen.value:.1%}, corrected"),
    )


def mean_row(
    metric: str,
    values: ArrayLike,
    groups: ArrayLike,
    *,
    component: Any,
    error: float,
    part: str = "",
    direction: Direction = "higher",
    unit: str = "",
    limit: float = math.inf,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    note: str = "",
) -> Row:
    """Return the row of a mean with Student's interval, clustered by group, within `bounds`.

    Where all values are equal, the interval is the one that a rate in the same place between the bounds would
    have.
    """
    array, labels = np.asarray(values, dtype=np.float64), np.asarray(groups)
    row = replace(_row(metric, part, len(array), direction, unit, component), error=error)
    if error > limit:
        return replace(row, note=_joined(note, _unreliable(error, limit)))
    value = float(array.mean())
    stderr = standard_error(array - value, labels)
    dof = len(np.unique(labels)) - 1
    low, high = interval(value, stderr, dof=dof)
    if stderr == 0 and math.isfinite(width := bounds[1] - bounds[0]):
        low, high = (
            bounds[0] + width * end
            for end in proportions.wilson((value - bounds[0]) / width, dof + 1, dof=dof)
        )
    return replace(
        row, value=value, stderr=stderr, low=max(low, bounds[0]), high=min(high, bounds[1]), note=note
    )


def error_row(metric: str, errors: ClassErrors, *, component: str, note: str, part: str = "") -> Row:
    """Return the row of a classifier's own error, with its interval; of no image may be decided."""
    wrong = errors.wrong
    row = Row(
        part=part,
        metric=metric,
        value=math.nan,
        n=int(errors.counts[:, :-1].sum()),
        direction="lower",
        unit="share of decided images",
        component=component,
        error=errors.error,
        note=note,
    )
    if wrong is None:
        return replace(row, note=_joined(note, "of one class, or of all but one prompt, no image is decided"))
    return replace(row, value=wrong.value, stderr=wrong.stderr, low=wrong.low, high=wrong.high)


def _row(metric: str, part: str, n: int, direction: Direction, unit: str, component: Any) -> Row:
    """Return a row without a number."""
    name = label(component)
    return Row(part=part, metric=metric, value=math.nan, n=n, direction=direction, unit=unit, component=name)


def _unreliable(error: float, limit: float) -> str:
    return f"the component errs too often ({error:.0%}; at most {limit:.0%})"


def difference_row(first: Row, second: Row, dof: int | None) -> Row:
    """Return first less second, which share no image: standard errors add as squares."""
    value, stderr = first.value - second.value, math.hypot(first.stderr, second.stderr)
    low, high = interval(value, stderr, dof=dof) if math.isfinite(stderr) else (math.nan, math.nan)
    return replace(
        first,
        part=f"{first.part} - {second.part}",
        value=value,
        stderr=stderr,
        low=low,
        high=high,
        n=first.n + second.n,
        note=first.note,
    )


def degrees(stderrs: Sequence[float], counts: Sequence[int]) -> int:
    """Return the degrees of freedom of a difference of two means with spreads of their own (Welch 1947)."""
    squares = np.square(stderrs)
    below = sum(square**2 / (count - 1) for square, count in zip(squares, counts, strict=True))
    return max(int(squares.sum() ** 2 / below), 1) if below > 0 else sum(counts) - 2


def enough(groups: ArrayLike) -> bool:
    """Return whether there are at least two groups, below which nothing has an interval."""
    return len(np.unique(np.asarray(groups))) >= 2


def told(row: Row, percent: bool = True) -> str:
    """Return a row's value and interval as sentences have them: `12.5% [3.1, 30.0]`."""
    if math.isnan(row.value):
        return "no number (unreliable)"
    scale, sign = (100, "%") if percent else (1, "")
    return f"{row.value * scale:.3g}{sign} [{row.low * scale:.3g}, {row.high * scale:.3g}]"


def points(row: Row) -> str:
    """Return a difference of shares and its interval in percentage points."""
    return f"{row.value * 100:.3g} percentage points [{row.low * 100:.3g}, {row.high * 100:.3g}]"


def unsure(lower: Row, higher: Row) -> str:
    """Return what a sentence that ranks two rows has to add: nothing where their intervals lie apart."""
    return "" if lower.high < higher.low else "; their intervals overlap"


def confused(right: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> Confusion:
    """Return the confusion of answers on pictures that have something, and on pictures that have not."""
    return Confusion(
        hits=float(right.sum()),
        positives=float(len(right)),
        false_alarms=float(wrong.sum()),
        negatives=float(len(wrong)),
    )


def _joined(*notes: str) -> str:
    return "; ".join(one for one in notes if one)
