"""How steeply shown shares rise with known ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.errors import InputError
from sd2eval.probes.shares import ClassErrors, variance_of_errors
from sd2eval.statistics import Difference


def slope(known: ArrayLike, shown: ArrayLike) -> Difference:
    """Return the least-squares slope of shown over known, with a standard error that lets spreads differ.

    The leverage-corrected sandwich HC3 (MacKinnon and White 1985).

    Args:
        known: exact, [n], n >= 3, not all equal.
        shown: with errors of their own, [n].

    Raises:
        InputError: fewer than three points, or all known ones are equal.
    """
    x, y = np.asarray(known, dtype=np.float64), np.asarray(shown, dtype=np.float64)
    centred = x - x.mean()
    spread = float(np.square(centred).sum())
    if len(x) < 3 or spread == 0:
        raise InputError("a slope needs at least 3 points whose known values differ")
    value = float(centred @ y) / spread
    residual = y - y.mean() - value * centred
    leverage = 1 / len(x) + np.square(centred) / spread
    weighted = centred * residual / (1 - leverage)
    return Difference(value, float(np.sqrt(np.square(weighted).sum())) / spread)


def slope_of_shares(known: ArrayLike, shown: ArrayLike, place: int, errors: ClassErrors) -> Difference:
    """Return `slope` of one class' corrected shares; what is uncertain in the correction moves all of them.

    Args:
        known: [n], see `slope`.
        shown: corrected shares of all classes, [n, K].
        place: of the class.
        errors: that they were corrected for.
    """
    values = np.asarray(shown, dtype=np.float64)
    each = [slope(known, column) for column in values.T]
    common = variance_of_errors([one.value for one in each], errors)[place]
    return Difference(each[place].value, float(np.hypot(each[place].stderr, np.sqrt(common))))
