"""Which of several known groups of images another image is nearest to, and how often that is wrong.

The answer is the nearest centroid, distances being measured in units of the spread within the groups (the
linear discriminant of Fisher 1936, all groups taken as equally likely): what differs within a group, such as
the object in front of a place, counts little. The covariance within groups is shrunk towards a multiple of
the identity by the amount of Ledoit and Wolf (2004), so that fewer images than dimensions are enough.

An image may be undecided: further from every centroid than nearly all known images are from their own, or
about as near to a second one. Errors are counted on known images that the answer was not made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from sd2eval.errors import InputError
from sd2eval.probes.shares import Answers, ClassErrors, class_errors

Array = NDArray[np.float64]

FOLDS = 50
"""Parts into which known images are cut to count errors; fewer images than that are left out one by one."""
FAR = 0.98
"""Share of the known images that is near enough to a centroid by definition."""
SURE = 0.6
"""Smallest probability of the nearest group, among all, that counts as an answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Known images of groups, as a later image is compared with them."""

    names: tuple[str, ...]
    """The K answers: the groups, or what they are told as."""
    told_as: Answers
    """Answer that each group stands for, [G]."""
    centroids: Array
    """[G, d], in units of the spread within groups."""
    turn: Array
    """[d, d]: features to such units."""
    farthest: float
    """Distance to the nearest centroid beyond which an image is undecided."""
    sure: float
    errors: ClassErrors
    """Counted on known images that were left out."""

    def answers(self, features: ArrayLike) -> Answers:
        """Return the answer of each image [n, d], or K where it is undecided: [n]."""
        best, distance, chance = _nearest(_wide(features) @ self.turn, self.centroids, self.told_as)
        return _decided(best, distance, chance, self.farthest, self.sure, len(self.names))


def learn(
    features: ArrayLike,
    known: Sequence[str],
    *,
    into: Mapping[str, str] | None = None,
    groups: ArrayLike | None = None,
    sure: float = SURE,
    far: float = FAR,
) -> Groups:
    """Return the groups of known images, with the errors that leaving images out shows.

    Args:
        features: [m, d].
        known: the group of each, [m]; at least two groups of two images.
        into: what each group is told as, such as the region of a country; None: as itself. The
            probabilities of groups that are told alike add up.
        groups: labels [m] of images that may be dependent (of one scene), for the interval of the error.
        sure: smallest probability of an answer.
        far: share of the left-out images that counts as near enough.

    Raises:
        InputError: fewer groups or images than that.
    """
    x, there = _wide(features), tuple(dict.fromkeys(known))
    y = np.array([there.index(one) for one in known], dtype=np.intp)
    if len(there) < 2 or np.bincount(y).min() < 2:
        raise InputError("images can be told apart only with at least 2 groups of at least 2 known images")
    told = [into[one] if into else one for one in there]
    names = tuple(dict.fromkeys(told))
    told_as = np.array([names.index(one) for one in told], dtype=np.intp)
    best, distance, chance = _left_out(x, y, _folds(y), told_as)
    farthest = float(np.quantile(distance, far))
    found = _decided(best, distance, chance, farthest, sure, len(names))
    turn = within_units(x, y)
    errors = class_errors(names, told_as[y], found, groups)
    return Groups(names, told_as, _centroids(x @ turn, y), turn, farthest, sure, errors)


def _left_out(x: Array, y: Answers, folds: Answers, told_as: Answers) -> tuple[Answers, Array, Array]:
    """Return answer, distance and probability of each image [m], learnt without its fold."""
    best = np.empty(len(y), dtype=np.intp)
    distance, chance = np.empty(len(y)), np.empty(len(y))
    for fold in np.unique(folds):
        out = folds == fold
        kept = np.unique(y[~out])
        if len(kept) < y.max() + 1:
            raise InputError("a group of known images has too few to leave some out")
        turn = within_units(x[~out], y[~out])
        centroids = _centroids(x[~out] @ turn, y[~out])
        best[out], distance[out], chance[out] = _nearest(x[out] @ turn, centroids, told_as)
    return best, distance, chance


def _folds(y: Answers) -> Answers:
    """Return the fold of each image [m]: images in turn, so that each fold has all groups."""
    folds = np.empty(len(y), dtype=np.intp)
    folds[np.argsort(y, kind="stable")] = np.arange(len(y)) % min(FOLDS, len(y))
    return folds


def within_units(x: Array, y: Answers) -> Array:
    """Return the symmetric root of the inverse covariance within groups, shrunk, [d, d]."""
    residual = x - _centroids(x, y)[y]
    n, d = residual.shape
    covariance = residual.T @ residual / n
    scale = float(np.trace(covariance)) / d
    if scale == 0:
        raise InputError("all images of a group are equal (constant images or a broken extractor)")
    target = scale * np.eye(d)
    distance = float(np.square(covariance - target).sum())
    # Mean squared error of the covariance, from the scatter of the images' own products around it.
    noise = float((np.square(residual).sum(axis=1) ** 2).sum() / n - np.square(covariance).sum()) / n
    weight = min(noise / distance, 1.0) if distance > 0 else 1.0
    values, vectors = np.linalg.eigh(weight * target + (1 - weight) * covariance)
    floor = values.max() * 1e-6
    turned: Array = (vectors / np.sqrt(np.maximum(values, floor))) @ vectors.T
    return turned


def _centroids(x: Array, y: Answers) -> Array:
    sums = np.zeros((int(y.max()) + 1, x.shape[1]))
    np.add.at(sums, y, x)
    centroids: Array = sums / np.bincount(y)[:, None]
    return centroids


def _nearest(x: Array, centroids: Array, told_as: Answers) -> tuple[Answers, Array, Array]:
    """Return the likeliest answer of each row, the distance to the nearest centroid and its probability."""
    squares = cdist(x, centroids, "sqeuclidean")
    least = squares.min(axis=1)
    odds = np.exp(-(squares - least[:, None]) / 2)
    chances = np.zeros((len(x), int(told_as.max()) + 1))
    np.add.at(chances.T, told_as, (odds / odds.sum(axis=1, keepdims=True)).T)
    return chances.argmax(axis=1), np.sqrt(least), chances.max(axis=1)


def _decided(
    best: Answers, distance: Array, chance: Array, farthest: float, sure: float, none: int
) -> Answers:
    return np.where((distance <= farthest) & (chance >= sure), best, none)


def _wide(features: ArrayLike) -> Array:
    return np.asarray(features, dtype=np.float64)
