"""How far shown shares lie above known ones, and how steeply they rise with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.errors import InputError
from sd2eval.probes.shares import Answers, ClassErrors, variance_of_errors, weights_of
from sd2eval.statistics import Difference


class Fit(NamedTuple):
    """A slope or a mean difference with its standard error, and the degrees of freedom of that."""

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


def slope_of_shares(known: ArrayLike, shown: ArrayLike, place: int, errors: ClassErrors) -> Fit:
    """Return `slope` of one class' corrected shares; what is uncertain in the correction moves all of them.

    Args:
        known: [n], see `slope`.
        shown: corrected shares of all classes, [n, K].
        place: of the class.
        errors: that they were corrected for.
    """
    values = np.asarray(shown, dtype=np.float64)
    each = [slope(known, column) for column in values.T]
    own = each[place].stderr ** 2
    return _fit(each[place].value, own, len(values) - 2, [one.value for one in each], place, errors)


def mean_above(known: ArrayLike, answers: Sequence[Answers], place: int, errors: ClassErrors) -> Fit:
    """Return the mean over subjects of one class' corrected share less the known one.

    Each subject counts alike, however many of its images are decided; its images are a stratum. A stratum's
    spread is that of its images and one more, which is like those of all subjects: few images that happen to
    be alike still vary.

    Args:
        known: of each subject, [n].
        answers: decided ones of each subject, n of them with at least one.
        place: of the class.
        errors: that the shares are corrected for.
    """
    k, weights = len(errors.names), weights_of(errors)
    counts = np.stack([np.bincount(one, minlength=k) for one in answers]).astype(np.float64)
    sizes = counts.sum(axis=1)
    shown = counts @ weights / sizes[:, None]
    smooth = (counts + (counts.sum(axis=0) + 1 / k) / (sizes.sum() + 1)) / (sizes + 1)[:, None]
    spread = smooth @ np.square(weights[:, place]) - np.square(smooth @ weights[:, place])
    own = float((spread / sizes).sum()) / len(sizes) ** 2
    value = float(np.mean(shown[:, place] - np.asarray(known, dtype=np.float64)))
    return _fit(value, own, max(int(sizes.sum()) - len(sizes), 1), shown.mean(axis=0), place, errors)


def _fit(value: float, own: float, dof: int, shares: ArrayLike, place: int, errors: ClassErrors) -> Fit:
    """Return a fit with the variance that the correction adds to its own.

    The degrees of freedom are those of a sum of two variances (Satterthwaite 1946): of the fit itself, and of
    the correction, which rests on the known images of the class.
    """
    common = float(variance_of_errors(shares, errors)[place])
    images = float(errors.counts[place, :-1].sum())
    parts = own**2 / dof + common**2 / max(images - 1, 1)
    both = (own + common) ** 2 / parts if parts > 0 else dof
    return Fit(value, float(np.sqrt(own + common)), max(int(both), 1))
