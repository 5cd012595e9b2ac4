"""The entropy of categories that few pictures were seen of, and an interval that holds at such few.

With 20 pictures and 24 clusters the entropy of the counts is too low by half a bit or more. By how much
depends on the shares, and no formula for its spread is near. So the interval is that of a test (Neyman
1937): it holds every entropy at which the counts are no surprise under at least one of four shapes of shares
(`SHAPES`), from one large category to all alike. What is surprising is found by simulation of just as many
pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from sd2eval.errors import InputError
from sd2eval.probes.proportions import Share, codes_of, quantile

Array = NDArray[np.float64]

LEVEL = 0.95
SIMULATED = 2000
"""Sets of pictures of each shape and entropy."""
POINTS = 121
"""Entropies that the test asks about, evenly from 0 to the largest."""
_HALVINGS = 60
_SAME = 1e-9
"""Bits by which equal entropies may differ."""


def entropy(labels: Sequence[str], categories: Sequence[str]) -> Share:
    """Return the entropy of categories among independent pictures in bits, 0 .. log2 K.

    The value is Grassberger's (2003): log n - sum n_k G(n_k) / n, G(m) = psi(m) + (-1)^m / 2
    (psi((m + 1) / 2) - psi(m / 2)), cut to the interval. The standard error is the one whose usual interval
    is as wide.

    Raises:
        InputError: fewer than two pictures or categories, or a label that is no category.
    """
    n, most = len(labels), len(categories)
    if n < 2 or most < 2:
        raise InputError(f"an entropy needs at least 2 pictures and categories, got {n} and {most}")
    counts = np.bincount(codes_of(labels, categories), minlength=most)
    plain = float(_plain(counts))
    low, high = _ends(plain, _expected(n, most))
    value = min(max(_grassberger(counts), low), high) if plain > 0 else 0.0
    stderr = (high - low) / (2 * quantile(LEVEL))
    return Share(value, stderr, low, high, n, float(n), n)


def bits_of(shares: ArrayLike) -> float:
    """Return the entropy of known shares in bits."""
    p = np.asarray(shares, dtype=np.float64)
    p = p[p > 0]
    return float(-(p @ np.log2(p)))


def _one_large(t: float, count: int) -> Array:
    """Return one category with share t, the others alike."""
    return np.array([t, *[(1 - t) / (count - 1)] * (count - 1)])


def _geometric(ratio: float, count: int) -> Array:
    return _normal(ratio ** np.arange(count))


def _zipf(power: float, count: int) -> Array:
    return _normal(np.arange(1, count + 1) ** -power)


def _some_alike(number: float, count: int) -> Array:
    """Return that number of categories alike, the last of them in part, and the others empty."""
    return _normal(np.clip(number - np.arange(count), 0, 1))


def _normal(weights: ArrayLike) -> Array:
    each = np.asarray(weights, dtype=np.float64)
    p: Array = each / each.sum()
    return p


SHAPES: tuple[tuple[Callable[[float, int], Array], Callable[[int], tuple[float, float]]], ...] = (
    (_one_large, lambda count: (1.0, 1 / count)),
    (_geometric, lambda count: (0.0, 1.0)),
    (_zipf, lambda count: (60.0, 0.0)),
    (_some_alike, lambda count: (1.0, float(count))),
)
"""Shares by one number, and where that begins and ends: entropy 0 and the largest."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What entropies of counts are no surprise at each entropy of the shares."""

    entropies: Array
    """Of the shares, [T], rising."""
    least: Array
    """[T]: 2.5% of the counts have less, for the shape where that is lowest."""
    largest: Array
    """[T]: 2.5% have more, for the shape where that is highest."""
    even: float
    """Median where all shares are alike."""


def _ends(plain: float, expected: Expected) -> tuple[float, float]:
    """Return where an entropy of counts begins to be a surprise, half-way between two entropies asked about.

    Counts that are more even than most that equal shares give are no more of a surprise than those.
    """
    above = np.flatnonzero(expected.least > plain + _SAME)
    below = np.flatnonzero(expected.largest < min(plain, expected.even) - _SAME)
    most = float(expected.entropies[-1])
    half = most / (POINTS - 1) / 2
    low = float(expected.entropies[below[-1]]) + half if len(below) else 0.0
    high = float(expected.entropies[above[0]]) - half if len(above) else most
    return min(low, most), max(high, 0.0)


@lru_cache(maxsize=256)
def _expected(n: int, count: int) -> Expected:
    """Simulate what `n` pictures of `count` categories show."""
    rng = np.random.default_rng([n, count])
    entropies = np.linspace(0, math.log2(count), POINTS)
    ends = np.empty((len(SHAPES), POINTS, 2))
    for shape, (shares, span) in enumerate(SHAPES):
        for point, wanted in enumerate(entropies):
            counts = rng.multinomial(n, _with_entropy(shares, span(count), count, wanted), size=SIMULATED)
            found = np.sort(_plain(counts))
            outside = int((1 - LEVEL) / 2 * SIMULATED)
            ends[shape, point] = found[outside], found[-outside - 1]
    least, largest = ends[..., 0].min(axis=0), ends[..., 1].max(axis=0)
    even = _plain(rng.multinomial(n, np.full(count, 1 / count), size=SIMULATED))
    # What is simulated is a little uneven; the truth rises.
    least, largest = np.maximum.accumulate(least), np.maximum.accumulate(largest)
    return Expected(entropies, least, largest, float(np.median(even)))


def _with_entropy(
    shares: Callable[[float, int], Array], span: tuple[float, float], count: int, wanted: float
) -> Array:
    """Return the shares of a shape that have an entropy, by halving the span."""
    first, last = span
    for _ in range(_HALVINGS):
        middle = (first + last) / 2
        if bits_of(shares(middle, count)) < wanted:
            first = middle
        else:
            last = middle
    return shares((first + last) / 2, count)


def _plain(counts: NDArray[np.int64]) -> Array:
    """Return the entropy of counts [..., K] as they are, in bits: [...]."""
    number = np.arange(counts.max() + 1)
    parts = np.array([m * math.log2(m) if m else 0.0 for m in number.tolist()])
    n = counts.sum(axis=-1)
    found: Array = np.maximum(np.log2(n) - parts[counts].sum(axis=-1) / n, 0.0)
    return found


def _grassberger(counts: NDArray[np.int64]) -> float:
    m = counts[counts > 0].astype(np.float64)
    n = m.sum()
    sign = np.where(m % 2 == 0, 0.5, -0.5)
    corrected = digamma(m) + sign * (digamma((m + 1) / 2) - digamma(m / 2))
    return float((math.log(n) - m @ corrected / n) / math.log(2))
