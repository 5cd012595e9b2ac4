"""Squared Euclidean distances in blocks: fast as a matrix product, exact where a comparison needs it.

|a|^2 + |b|^2 - 2 a . b is a matrix product but rounds: two equal rows are not at distance 0, and a sample
that lies exactly on the rim of a ball falls on either side by chance. So every entry that is closer to its
limit than the rounding error is computed again as the sum of (a - b)^2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._pairs import blocks

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_NUMBERS_AT_ONCE = 2**22  # 32 MB of differences


def nearest(x: Array, k: int, what: str) -> tuple[Array, Indices]:
    """Return for each row of x its k nearest other rows, nearest first: squared distances and indices.

    Args:
        x: shape [n, d].
        k: 1 or more.
        what: how x is called in messages.

    Returns:
        Two arrays [n, k]; among equally distant rows the first comes first.

    Raises:
        InputError: fewer than k + 1 rows.
    """
    if len(x) < k + 1:
        raise InputError(f"{what}: {k} nearest neighbours need at least {k + 1} rows, got {len(x)}")
    distances, indices = np.empty((len(x), k)), np.empty((len(x), k), dtype=np.intp)
    centred = x - x.mean(axis=0)
    for rows in blocks(len(x)):
        rough, error = _rough(centred[rows], centred)
        count = len(rough)
        rough[np.arange(count), np.arange(rows.start, rows.stop)] = np.inf  # not its own neighbour
        # Rounding may swap neighbours, but none of the true k is further than this.
        limit = np.partition(rough, k - 1, axis=1)[:, k - 1] + 2 * error
        i, j = np.nonzero(rough <= limit[:, None])
        exact = _exact(x, x, i + rows.start, j)
        order = np.lexsort((j, exact, i))
        first = np.searchsorted(i[order], np.arange(count))
        chosen = order[first[:, None] + np.arange(k)]
        distances[rows], indices[rows] = exact[chosen], j[chosen]
    return distances, indices


def between(x: Array, y: Array, *limits: Array) -> Iterator[tuple[slice, Array]]:
    """Yield for blocks of rows of x the squared distances to all rows of y, [rows, m], exact near the limits.

    Args:
        x: shape [n, d].
        y: shape [m, d].
        limits: what the distances will be compared with: one squared radius per row of y, each [m].
    """
    centre = y.mean(axis=0)
    centred = y - centre
    for rows in blocks(len(x)):
        distances, error = _rough(x[rows] - centre, centred)
        close = np.zeros(distances.shape, dtype=bool)
        for limit in limits:
            close |= np.abs(distances - limit) <= error[:, None]
        i, j = np.nonzero(close)
        distances[i, j] = _exact(x, y, i + rows.start, j)
        yield rows, distances


def _rough(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the squared distances of a [p, d] and b [q, d], [p, q], and a bound of each row's error, [p]."""
    a_squares, b_squares = np.square(a).sum(axis=1), np.square(b).sum(axis=1)
    distances: Array = a @ b.T
    distances *= -2
    distances += a_squares[:, None]
    distances += b_squares
    error = (2 * a.shape[1] + 8) * np.finfo(np.float64).eps * (a_squares + b_squares.max())
    return distances, error


def _exact(x: Array, y: Array, i: NDArray[Any], j: NDArray[Any]) -> Array:
    """Return the squared distances of the pairs (x[i], y[j]); the same two rows always give the same bits."""
    distances = np.empty(len(i))
    step = max(_NUMBERS_AT_ONCE // x.shape[1], 1)
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        distances[part] = np.square(x[i[part]] - y[j[part]]).sum(axis=1)
    return distances
