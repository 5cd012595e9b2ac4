"""How steeply shown shares rise with known ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.errors import InputError
from sd2eval.probes.shares import ClassErrors, variance_of_errors
from sd2eval.statistics import Difference


class Slope(NamedTuple):
    """A slope with its standard error, and the degrees of freedom of that."""

    value: float
    stderr: float
    dof: int


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


def slope_of_shares(known: ArrayLike, shown: ArrayLike, place: int, errors: ClassErrors) -> Slope:
    """Return `slope` of one class' corrected shares; what is uncertain in the correction moves all of them.

    The degrees of freedom are those of a sum of two variances (Satterthwaite 1946): of the points around the
    line, and of the correction, which rests on the known images of the class.

    Args:
        known: [n], see `slope`.
        shown: corrected shares of all classes, [n, K].
        place: of the class.
        errors: that they were corrected for.
    """
    values = np.asarray(shown, dtype=np.float64)
    each = [slope(known, column) for column in values.T]
    own = each[place].stderr ** 2
    common = float(variance_of_errors([one.value for one in each], errors)[place])
    images = float(errors.counts[place, :-1].sum())
    parts = own**2 / (len(values) - 2) + common**2 / max(images - 1, 1)
    dof = (own + common) ** 2 / parts if parts > 0 else len(values) - 2
    return Slope(each[place].value, float(np.sqrt(own + common)), max(int(dof), 1))
