"""Shares of several classes that are seen through a classifier that errs, and how sure they are.

What is counted are answers, one per image: a class, or "undecided". How often each class gets each answer is
measured beforehand, on images of which the class is known. Shares are of the decided images: that some are
undecided is taken to have nothing to do with their class, and their number is told beside. If M [K, K] holds
how often a decided image of class k gets answer j, the expected shares of the answers are p M for class
shares p, and the mean of w[answer, c] with w = M^-1 has the expectation p_c whatever the shares are (for two
classes this is the correction of Rogan and Gladen 1978).

The interval of a share inverts a test: it holds every t that the counts do not contradict, with the variance
that they would have if t were true (Wilson 1927). That variance has two parts, the images counted and the
known images behind M. Without errors it is Wilson's interval, so that 0 of n and n of n have an honest one
too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.probes import proportions
from sd2eval.probes.error_rates import error_rate
from sd2eval.probes.proportions import Share

Array = NDArray[np.float64]
Answers = NDArray[np.intp]

LEVEL = 0.95
SURPLUS = 3.0
"""Standard errors by which more images than known ones may be undecided, see `surplus`."""
_LARGEST = 1e3
"""Weight beyond which a share is not told."""
_GRID = np.sin(np.linspace(0, np.pi / 2, 101)) ** 2
"""Shares that an interval asks about, closer together near 0 and 1."""
_STEPS = 15
_DOUBT = 0.1
"""Known images added to each class, spread over the answers: one that was never mistaken may yet be."""
_DOUBT_OF_VARIANCE = 0.5
"""The same where a variance is all there is, and no interval that asks for every possible truth."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassErrors:
    """How often images of each class get each answer."""

    names: tuple[str, ...]
    """The K classes, which are the first K answers as well."""
    counts: Array
    """[K, J]: known images of class k with answer j; the last answer is "undecided"."""
    wrong: Share | None = None
    """`error` with its interval; None where only counts are known, or too few known images were decided."""

    @property
    def error(self) -> float:
        """Share of wrong answers among decided ones, each class counting alike; NaN if none was decided."""
        decided = self.counts[:, :-1]
        totals = decided.sum(axis=1)
        if not (totals > 0).all():
            return float("nan")
        return float(1 - np.mean(np.diag(decided) / totals))

    def unfit(self, reader: str, limit: float) -> str:
        """Return why they leave no shares, errors up to a limit being small enough; empty where they do."""
        decided = self.counts[:, :-1].sum(axis=1)
        blank = [name for name, total in zip(self.names, decided, strict=True) if total == 0]
        if blank:
            return f"{reader}'s errors are not known: no held-out image of '{blank[0]}' was decided"
        if self.error <= limit:
            return ""
        return f"{reader} errs too often ({self.error:.0%}; at most {limit:.0%})"

    @property
    def undecided(self) -> float:
        """Share of known images without an answer, each class counting alike."""
        return float(np.mean(self.counts[:, -1] / self.counts.sum(axis=1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """A class' share with its 95% interval, corrected for the classifier's errors."""

    name: str
    value: float
    """Unbiased, so that errors taken away may leave a little less than 0 or more than 1."""
    stderr: float
    low: float
    high: float


def class_errors(
    names: Sequence[str], known: ArrayLike, answers: ArrayLike, groups: ArrayLike | None = None
) -> ClassErrors:
    """Count the answers to images of known class.

    Args:
        names: of the K classes.
        known: their class, [m] in 0..K-1.
        answers: [m] in 0..K, where K is "undecided".
        groups: [m] labels of images that may be dependent (of one prompt); None: all are independent.

    Raises:
        InputError: a class has no image.
    """
    k = len(names)
    counts = np.zeros((k, k + 1))
    classes, given = np.asarray(known, dtype=np.intp), np.asarray(answers, dtype=np.intp)
    np.add.at(counts, (classes, given), 1.0)
    missing = [name for name, total in zip(names, counts.sum(axis=1), strict=True) if total == 0]
    if missing:
        raise InputError(f"no image is known to be of class '{missing[0]}', so its errors are not known")
    labels = np.arange(len(given)) if groups is None else np.asarray(groups)
    sure = given < k
    return ClassErrors(
        tuple(names), counts, _wrong(classes[sure], classes[sure] != given[sure], labels[sure], k)
    )


def _wrong(
    classes: Answers, wrong: NDArray[np.bool_], groups: NDArray[np.generic], count: int
) -> Share | None:
    """Return the share of wrong answers, each class counting alike; None if a class has no answer."""
    sizes = np.bincount(classes, minlength=count)
    if not sizes.all() or len(np.unique(groups)) < 2:
        return None
    return error_rate(wrong, classes, groups)


def corrected(
    answers: ArrayLike,
    errors: ClassErrors,
    groups: ArrayLike | None = None,
    *,
    of: Collection[str] | None = None,
) -> list[ClassShare]:
    """Return the share of each class among the decided of images of which only the answers are known.

    Args:
        answers: [n] in 0..K, where K is "undecided".
        errors: of the classifier that gave them.
        groups: [n] labels of images that may be dependent (of one scene); None: all are independent.
        of: the classes that are wanted; None: all.

    Raises:
        InputError: fewer than two decided images or groups of them, a class of which no known image was
            decided, or classes that the classifier cannot tell apart.
    """
    given = np.asarray(answers, dtype=np.intp)
    decided = given < len(errors.names)
    labels = np.arange(len(given)) if groups is None else np.asarray(groups)
    if len(np.unique(labels[decided])) < 2:
        raise InputError(f"shares need at least 2 decided images (and groups of them), got {decided.sum()}")
    found, known = given[decided], _decided(errors)
    weights = _weights(known)
    each = weights[found]
    shares = each.mean(axis=0)
    effective, count = proportions.effective_number(each, labels[decided])
    reach = proportions.quantile(LEVEL, count - 1) if groups is not None else proportions.quantile(LEVEL)
    seen = np.bincount(found, minlength=len(errors.names)) / len(found)
    wanted = [c for c, name in enumerate(errors.names) if of is None or name in of]
    spread = np.square(each - shares).sum(axis=0) / (len(found) - 1) / effective
    stderr = np.sqrt(spread + _known_variance(np.clip(shares, 0, 1), weights, known))
    found_shares = []
    for c in wanted:
        low, high = _interval(shares, seen, known, c, 1 / effective, reach)
        share, one = float(shares[c]), float(stderr[c])
        found_shares.append(ClassShare(name=errors.names[c], value=share, stderr=one, low=low, high=high))
    return found_shares


def corrected_values(answers: ArrayLike, errors: ClassErrors) -> Array:
    """Return the shares alone, [K], without intervals; see `corrected`."""
    given = np.asarray(answers, dtype=np.intp)
    decided = given[given < len(errors.names)]
    if len(decided) < 2:
        raise InputError(f"shares need at least 2 decided images, got {len(decided)}")
    shares: Array = weights_of(errors)[decided].mean(axis=0)
    return shares


def weights_of(errors: ClassErrors) -> Array:
    """Return what each answer counts for each class, [K, K]: shares are means of the answers' rows."""
    return _weights(_decided(errors))


def variance_of_errors(coefficients: ArrayLike, errors: ClassErrors) -> Array:
    """Return the variance that the finite number of known images adds to a linear function of shares, [K].

    Args:
        coefficients: the same function of the true shares of each class, [K], such as their slopes.
        errors: that the shares were corrected for.
    """
    known = _decided(errors)
    return _known_variance(np.asarray(coefficients, dtype=np.float64), _weights(known), known)


def surplus(answers: ArrayLike, errors: ClassErrors) -> float:
    """Return how many standard errors more images are undecided than of any mixture of the known classes.

    Positive and large means that the images are unlike all of them, so that no share describes them.
    """
    found = np.asarray(answers)
    k, n = len(errors.names), len(found)
    likely = (errors.counts[:, -1] + 0.5) / (errors.counts.sum(axis=1) + 1)
    most = int(np.argmax(likely))
    expected, known = float(likely[most]), float(errors.counts[most].sum())
    variance = expected * (1 - expected) * (1 / n + 1 / known)
    return float((np.mean(found == k) - expected) / np.sqrt(variance))


def _decided(errors: ClassErrors) -> Array:
    """Return the known images that were decided, [K, K]."""
    known = errors.counts[:, :-1]
    for name, total in zip(errors.names, known.sum(axis=1), strict=True):
        if total == 0:
            raise InputError(f"no known image of class '{name}' was decided, so its errors are not known")
    return known


def _weights(known: Array) -> Array:
    """Return w [K, K] with M w = 1."""
    weights = _solve(known / known.sum(axis=1, keepdims=True))
    if not np.abs(weights).max() < _LARGEST:
        raise InputError("the classifier gives two classes the same answers, so their shares cannot be told")
    return weights


def _solve(m: Array) -> Array:
    """Return w [..., K, K] with m w = 1; large where two classes look alike."""
    k = m.shape[-1]
    weights: Array = np.asarray(np.linalg.inv(m + 1e-9 * np.eye(k)), dtype=np.float64)
    return weights


def _interval(
    shares: Array, found: Array, known: Array, c: int, per_image: float, reach: float
) -> tuple[float, float]:
    """Return the ends of the interval of share c.

    For every t of a grid the likeliest world with p_c = t is found (`_likeliest`), known and counted images
    together. In that world, w . (answers - p M) with the measured M has mean 0 and a variance with a part for
    either kind of images; t is kept where it is within `reach` standard errors.

    Args:
        shares: the estimates, [K].
        found: shares of the answers, [K].
        known: decided known images of each class by answer, [K, K].
        c: the class.
        per_image: variance of a mean over that of one image.
        reach: quantile.
    """
    sizes = known.sum(axis=1)
    p, m = _likeliest(np.clip(shares, 0, 1), found / per_image, known, c)
    w = _solve(m)[:, :, c]
    first, second = (m @ w[:, :, None])[:, :, 0], (m @ np.square(w)[:, :, None])[:, :, 0]
    residual = w @ found - (p * (w @ (known / sizes[:, None]).T)).sum(axis=1)
    one = (p * second).sum(axis=1) - np.square((p * first).sum(axis=1))
    behind = (np.square(p) * (second - np.square(first)) / sizes).sum(axis=1)
    excess = np.square(residual) - reach**2 * (np.clip(one, 0, None) * per_image + behind)
    return _ends(excess, float(np.clip(shares[c], 0, 1)))


def _likeliest(shares: Array, found: Array, known: Array, c: int) -> tuple[Array, Array]:
    """Return the likeliest shares [T, K] and answer probabilities [T, K, K] where share c is each of `_GRID`.

    Expectation maximisation over which class each counted answer (`found` of them, [K]) comes from.
    """
    rest = np.where(np.arange(len(shares)) == c, 0.0, shares + 1e-3)
    p = (1 - _GRID)[:, None] * (rest / rest.sum())
    p[:, c] = _GRID
    prior = known + _DOUBT / len(known)
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


def _known_variance(shares: Array, weights: Array, known: Array) -> Array:
    """Return the variance that the finite number of known images adds to each share, [K]."""
    smooth = known + _DOUBT_OF_VARIANCE / len(known)
    m = smooth / smooth.sum(axis=1, keepdims=True)
    of_class = (m @ weights**2 - np.square(m @ weights)) / known.sum(axis=1)[:, None]
    variance: Array = np.square(shares) @ of_class
    return variance
