"""Shares of several classes that are seen through a classifier that errs, and how sure they are.

What is counted are answers, one per image: a class, or "undecided" as the last answer. How often each class
gets each answer is measured beforehand, on images of which the class is known. If M [K, J] holds these
probabilities, the expected shares of the answers are p M for class shares p, and

    p_c = mean of w[answer, c]   with   M w = 1

has the right expectation whatever the shares are (for two classes and no third answer this is the correction
of Rogan and Gladen 1978). With more answers than classes there are many such w; the one of least squares in
the answers' inverse frequency is taken, under which the shares add up to 1.

The interval of a share inverts a test: it holds every t that the estimate does not contradict, with the
variance that the estimate would have if t were true (Wilson 1927; Lang and Reiczigel 2014 for two classes).
That variance has two parts, the images counted and the known images behind M. Without errors it is Wilson's
interval, so that 0 of n and n of n have an honest one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.probes import proportions
from sd2eval.statistics import standard_error

Array = NDArray[np.float64]
Answers = NDArray[np.intp]

LEVEL = 0.95
_UNSEEN = 1e-3
"""Known images that gave an answer that none of them gave: too few to move a share, enough to divide by."""
_LARGEST = 1e4
_GRID = np.sin(np.linspace(0, np.pi / 2, 101)) ** 2
"""Shares that an interval asks about, closer together near 0 and 1."""
_STEPS = 25
_DOUBT = 0.5
"""The same for variances, over all answers of a class: a class that was never mistaken may yet be."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassErrors:
    """How often images of each class get each answer."""

    names: tuple[str, ...]
    """The K classes, which are the first K answers as well."""
    counts: Array
    """[K, J]: known images of class k with answer j; the last answer is "undecided"."""

    @property
    def error(self) -> float:
        """Share of wrong answers among decided ones, each class counting alike; NaN if none was decided."""
        decided = self.counts[:, :-1]
        totals = decided.sum(axis=1)
        if not (totals > 0).all():
            return float("nan")
        return float(1 - np.mean(np.diag(decided) / totals))

    @property
    def undecided(self) -> float:
        """Share of known images without an answer, each class counting alike."""
        return float(np.mean(self.counts[:, -1] / self.counts.sum(axis=1)))

    def merged(self, groups: Sequence[str]) -> ClassErrors:
        """Return the errors between groups of classes, in the order in which they first come.

        Args:
            groups: of each class, [K].
        """
        names, index = _first_seen(groups)
        into = np.zeros((len(groups), len(names)))
        into[np.arange(len(groups)), index] = 1
        answers = np.column_stack([self.counts[:, :-1] @ into, self.counts[:, -1]])
        return ClassErrors(names, into.T @ answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """A class' share with its 95% interval, corrected for the classifier's errors."""

    name: str
    value: float
    """Unbiased, so that errors taken away may leave a little less than 0 or more than 1."""
    stderr: float
    low: float
    high: float


def class_errors(names: Sequence[str], known: ArrayLike, answers: ArrayLike) -> ClassErrors:
    """Count the answers to images of known class.

    Args:
        names: of the K classes.
        known: their class, [m] in 0..K-1.
        answers: [m] in 0..K, where K is "undecided".

    Raises:
        InputError: a class has no image.
    """
    k = len(names)
    counts = np.zeros((k, k + 1))
    np.add.at(counts, (np.asarray(known), np.asarray(answers)), 1.0)
    missing = [name for name, total in zip(names, counts.sum(axis=1), strict=True) if total == 0]
    if missing:
        raise InputError(f"no image is known to be of class '{missing[0]}', so its errors are not known")
    return ClassErrors(tuple(names), counts)


def merged_answers(answers: ArrayLike, groups: Sequence[str]) -> Answers:
    """Return answers about classes as answers about groups of them, in the order of `ClassErrors.merged`."""
    names, index = _first_seen(groups)
    merged: Answers = np.append(index, len(names))[np.asarray(answers)]
    return merged


def corrected(answers: ArrayLike, errors: ClassErrors, groups: ArrayLike | None = None) -> list[ClassShare]:
    """Return the share of each class among images of which only the answers are known.

    Args:
        answers: [n] in 0..K, where K is "undecided".
        errors: of the classifier that gave them.
        groups: [n] labels of images that may be dependent (of one scene); None: all are independent.

    Raises:
        InputError: fewer than two groups of images, or classes that the classifier cannot tell apart.
    """
    found = np.asarray(answers, dtype=np.intp)
    weights = _weights(errors)
    each = weights[found]
    shares = each.mean(axis=0)
    spread, effect, reach = _spread(each, groups)
    seen = np.bincount(found, minlength=errors.counts.shape[1]) / len(found)
    ends = _interval(shares, seen, errors, effect / len(found), reach)
    known = _known_variance(np.clip(shares, 0, 1)[None, :], weights, errors)[0]
    return [
        ClassShare(name=name, value=float(share), stderr=float(np.sqrt(one**2 + more)), low=low, high=high)
        for name, share, one, more, (low, high) in zip(errors.names, shares, spread, known, ends, strict=True)
    ]


def surplus(answers: ArrayLike, errors: ClassErrors) -> float:
    """Return how many standard errors more images are undecided than of any mixture of the known classes.

    Positive and large means that the images are unlike all of them, so that no share describes them.
    """
    found = np.asarray(answers)
    k, n = len(errors.names), len(found)
    likely = (errors.counts[:, -1] + _DOUBT) / (errors.counts.sum(axis=1) + 2 * _DOUBT)
    most = int(np.argmax(likely))
    expected, known = float(likely[most]), float(errors.counts[most].sum())
    variance = expected * (1 - expected) * (1 / n + 1 / known)
    return float((np.mean(found == k) - expected) / np.sqrt(variance))


def _weights(errors: ClassErrors) -> Array:
    """Return w [J, K] with M w = 1, the least in the inverse frequency of the answers."""
    smooth = errors.counts + _UNSEEN
    weights = _solve(smooth / smooth.sum(axis=1, keepdims=True))
    if not np.abs(weights).max() < _LARGEST:
        raise InputError("the classifier gives two classes the same answers, so their shares cannot be told")
    return weights


def _solve(m: Array) -> Array:
    """Return w [..., J, K] with m w = 1, for m [..., K, J]."""
    scaled = m / m.mean(axis=-2, keepdims=True)
    gram = scaled @ np.swapaxes(m, -1, -2)
    # A world in which two classes look alike has no such w; a large one says that nothing can be told.
    ridge = 1e-9 * np.eye(m.shape[-2])
    weights: Array = np.swapaxes(np.linalg.solve(gram + ridge, scaled), -1, -2)
    return weights


def _spread(each: Array, groups: ArrayLike | None) -> tuple[Array, float, float]:
    """Return the shares' standard errors [K], the design effect, and the quantile that an interval reaches.

    One design effect serves all classes: that of a rare class alone would rest on a few images.
    """
    effective, count = proportions.effective_number(each, groups)
    labels: NDArray[Any] = np.arange(len(each)) if groups is None else np.asarray(groups)
    spread = np.array([standard_error(column, labels) for column in (each - each.mean(axis=0)).T])
    return spread, len(each) / effective, proportions.quantile(LEVEL, count - 1)


def _interval(
    shares: Array, found: Array, errors: ClassErrors, per_image: float, reach: float
) -> list[tuple[float, float]]:
    """Return the ends of each share's interval.

    For every t of a grid the likeliest world with p_c = t is found (`_likeliest`), known and counted images
    together. In that world, w . (answers - M p) with the measured M has mean 0 and a variance with a part for
    either kind of images; t is kept where it is within `reach` standard errors.

    Args:
        shares: the estimates, [K].
        found: shares of the answers, [J].
        errors: of the classifier.
        per_image: variance of a mean over that of one image.
        reach: quantile.
    """
    measured = errors.counts / errors.counts.sum(axis=1, keepdims=True)
    ends = []
    for c, share in enumerate(shares):
        p, m = _likeliest(np.clip(shares, 0, 1), found / per_image, errors, c)
        w = _solve(m)[:, :, c]
        residual = w @ found - np.einsum("tk,kj,tj->t", p, measured, w)
        one = np.einsum("tk,tkj,tj->t", p, m, w**2) - np.square(np.einsum("tk,tkj,tj->t", p, m, w))
        of_class = np.einsum("tkj,tj->tk", m, w**2) - np.square(np.einsum("tkj,tj->tk", m, w))
        known = np.einsum("tk,tk->t", p**2, of_class / errors.counts.sum(axis=1))
        excess = np.square(residual) - reach**2 * (np.clip(one, 0, None) * per_image + known)
        ends.append(_ends(excess, float(np.clip(share, 0, 1))))
    return ends


def _likeliest(shares: Array, found: Array, errors: ClassErrors, c: int) -> tuple[Array, Array]:
    """Return the likeliest shares [T, K] and answer probabilities [T, K, J] where share c is each of `_GRID`.

    Expectation maximisation over which class each counted answer (`found` of them, [J]) comes from.
    """
    rest = np.where(np.arange(len(shares)) == c, 0.0, shares + 1e-3)
    p = (1 - _GRID)[:, None] * (rest / rest.sum())
    p[:, c] = _GRID
    prior = errors.counts + _DOUBT / errors.counts.shape[1]
    m = np.broadcast_to(prior / prior.sum(axis=1, keepdims=True), (len(_GRID), *prior.shape))
    for _ in range(_STEPS):
        joint = p[:, :, None] * m
        joint = joint / joint.sum(axis=1, keepdims=True) * found
        m = prior + joint
        m = m / m.sum(axis=2, keepdims=True)
        p = joint.sum(axis=2)
        p[:, c] = 0.0
        p *= ((1 - _GRID) / np.maximum(p.sum(axis=1), 1e-12))[:, None]
        p[:, c] = _GRID
    return p, m


def _ends(excess: Array, share: float) -> tuple[float, float]:
    """Return where the excess over the grid crosses zero, around the kept t; never without the share."""
    kept = np.flatnonzero(excess <= 0)
    if not len(kept):
        return share, share
    low, high = int(kept[0]), int(kept[-1])
    left, right = _GRID[low], _GRID[high]
    if low > 0:
        left -= (left - _GRID[low - 1]) * excess[low] / (excess[low] - excess[low - 1])
    if high < len(_GRID) - 1:
        right += (_GRID[high + 1] - right) * excess[high] / (excess[high] - excess[high + 1])
    return min(float(left), share), max(float(right), share)


def _known_variance(shares: Array, weights: Array, errors: ClassErrors) -> Array:
    """Return the variance that the finite number of known images adds, of shares [T, K]: [T, K]."""
    smooth = errors.counts + _DOUBT / errors.counts.shape[1]
    m = smooth / smooth.sum(axis=1, keepdims=True)
    of_class = (m @ weights**2 - np.square(m @ weights)) / errors.counts.sum(axis=1)[:, None]
    variance: Array = np.square(shares) @ of_class
    return variance


def _first_seen(groups: Sequence[str]) -> tuple[tuple[str, ...], Answers]:
    names = tuple(dict.fromkeys(groups))
    return names, np.array([names.index(group) for group in groups], dtype=np.intp)
