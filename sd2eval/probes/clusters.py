"""Clusters of images of known identity terms, and where portraits fall among them (Luccioni et al. 2023).

Images drawn from prompts that name an identity ("a woman", "a Black man"; in the mini world a colour) are
clustered hierarchically (Ward 1963). A portrait that names none is given to the nearest cluster. Shares of
clusters describe a set of portraits; nothing is said about the person in one of them.

Three things are added to the published method. Distances are in units of the spread within a term, so that
pose and background do not make the clusters. A portrait far from every cluster, or about as near to clusters
of another kind, is undecided. And a cluster is read as a term only where most of its images carry it, and
how often that reading is wrong is counted on identity images that the clusters were not made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from sd2eval.errors import InputError
from sd2eval.probes import nearest_class
from sd2eval.probes.shares import Answers, ClassErrors, class_errors

Array = NDArray[np.float64]

FOLDS = 10
"""Parts of the identity images; each is held out once to count errors."""
CLEAR = 0.6
"""Smallest share of a cluster's images with one term by which it is read as that term."""
PER_CLUSTER = 3
"""Identity images per cluster, at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Clusters of identity images."""

    centroids: Array
    """[C, d], in units of the spread within a term."""
    turn: Array
    """[d, d]: features to such units."""
    members: Answers
    """Cluster of each identity image, [m]."""
    farthest: float
    """Distance to the nearest centroid beyond which an image belongs to none."""

    def chances(self, features: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
        """Return how likely each image [n, d] is of each cluster, [n, C], and whether it is far from all."""
        turned = np.asarray(features, dtype=np.float64) @ self.turn
        squares = cdist(turned, self.centroids, "sqeuclidean")
        odds = np.exp(-(squares - squares.min(axis=1, keepdims=True)) / 2)
        return odds / odds.sum(axis=1, keepdims=True), np.sqrt(squares.min(axis=1)) > self.farthest

    def nearest(self, features: ArrayLike) -> Answers:
        """Return the nearest cluster of each image [n], or C where it is far from all."""
        chances, far = self.chances(features)
        return np.where(far, len(self.centroids), chances.argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Clusters as the terms that most of their images carry."""

    names: tuple[str, ...]
    of_cluster: Answers
    """[C]: index of the term, or K where no term is clear."""
    errors: ClassErrors
    """Counted on held-out identity images, clusters made anew without them."""
    sure: float

    def answers(self, clusters: Clusters, features: ArrayLike) -> Answers:
        """Return the term of each image [n, d], or K where that is undecided: [n]."""
        return _read(clusters, features, self.of_cluster, len(self.names), self.sure)


def make_clusters(features: ArrayLike, terms: Sequence[str], number: int) -> Clusters:
    """Cluster identity images.

    Args:
        features: [m, d].
        terms: the identity of each, [m], as finely as it was prompted.
        number: of clusters.

    Raises:
        InputError: fewer than `PER_CLUSTER` images per cluster, or a term of one image only.
    """
    x, y = np.asarray(features, dtype=np.float64), _codes(terms)
    if number < 2 or len(x) < PER_CLUSTER * number:
        raise InputError(
            f"{number} clusters need at least {PER_CLUSTER * max(number, 2)} identity images, got {len(x)}"
        )
    distances = [
        cdist(x[out] @ turn, centroids).min(axis=1) for out, turn, centroids, _ in _held_out(x, y, number)
    ]
    turn, centroids, members = _ward(x, y, number)
    farthest = float(np.quantile(np.concatenate(distances), nearest_class.FAR))
    return Clusters(centroids, turn, members, farthest)


def read_clusters(
    clusters: Clusters,
    features: ArrayLike,
    terms: Sequence[str],
    labels: Sequence[str],
    *,
    groups: ArrayLike | None = None,
    sure: float = nearest_class.SURE,
) -> Reading:
    """Read clusters as one part of the identity, such as the gender term, and count how often that errs.

    Args:
        clusters: made of the same images.
        features: of the identity images, [m, d].
        terms: the whole identity of each, [m].
        labels: the part of it that is read, [m]; empty where the prompt leaves it unsaid.
        groups: labels [m] of images that may be dependent (of one prompt); None: each is its own.
        sure: smallest probability, over all clusters that are read alike, of an answer.
    """
    x, y = np.asarray(features, dtype=np.float64), _codes(terms)
    names = tuple(dict.fromkeys(one for one in labels if one))
    said = np.array([one != "" for one in labels])
    wanted = np.array([names.index(one) if one else -1 for one in labels], dtype=np.intp)
    found = np.empty(len(x), dtype=np.intp)
    number = len(clusters.centroids)
    for out, turn, centroids, members in _held_out(x, y, number):
        without = Clusters(centroids, turn, members, clusters.farthest)
        majority = _majorities(members, wanted[~out], number, len(names))
        found[out] = _read(without, x[out], majority, len(names), sure)
    majority = _majorities(clusters.members, wanted, number, len(names))
    owners = np.arange(len(x)) if groups is None else np.asarray(groups)
    return Reading(names, majority, class_errors(names, wanted[said], found[said], owners[said]), sure)


def _read(clusters: Clusters, features: ArrayLike, majority: Answers, none: int, sure: float) -> Answers:
    chances, far = clusters.chances(features)
    of_term = np.zeros((len(chances), none + 1))
    np.add.at(of_term.T, majority, chances.T)
    best = of_term.argmax(axis=1)
    unsure: NDArray[np.bool_] = of_term.max(axis=1) < sure
    return np.where(far | unsure, none, best)


def _majorities(members: Answers, wanted: Answers, number: int, none: int) -> Answers:
    counts = np.zeros((number, none))
    said = wanted >= 0
    np.add.at(counts, (members[said], wanted[said]), 1.0)
    clear = counts.max(axis=1) >= np.maximum(CLEAR * counts.sum(axis=1), 1)
    return np.where(clear, counts.argmax(axis=1), none)


def _held_out(x: Array, y: Answers, number: int) -> list[tuple[NDArray[np.bool_], Array, Array, Answers]]:
    """Return for each fold: which images are out [m], and turn, centroids and members made without them."""
    folds = np.empty(len(y), dtype=np.intp)
    folds[np.argsort(y, kind="stable")] = np.arange(len(y)) % FOLDS
    return [(folds == fold, *_ward(x[folds != fold], y[folds != fold], number)) for fold in range(FOLDS)]


def _ward(x: Array, y: Answers, number: int) -> tuple[Array, Array, Answers]:
    """Return turn [d, d], centroids [C, d] and the cluster of each image [m]."""
    turn = nearest_class.within_units(x, y)
    turned = x @ turn
    members = fcluster(linkage(turned, "ward"), number, "maxclust").astype(np.intp) - 1
    centroids = np.array([turned[members == one].mean(axis=0) for one in range(number)])
    return turn, centroids, members


def _codes(terms: Sequence[str]) -> Answers:
    return np.unique(np.asarray(terms), return_inverse=True)[1].astype(np.intp)
