"""Sums over all pairs of samples in blocks, so that n x n kernel values are never in memory at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array], Array]
"""Takes x [a, d] and y [b, d] and returns the kernel of every pair, [a, b]."""

BLOCK = 1024
"""Rows per side: kernel blocks of 8 MB, whatever n is."""


def blocks(n: int) -> list[slice]:
    """Return slices of at most `BLOCK` that cover 0..n."""
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def sums_within(x: Array, kernel: Kernel) -> Array:
    """Return for each row the sum of its kernel with all other rows, [n]; each pair of blocks only once."""
    sums = np.zeros(len(x))
    parts = blocks(len(x))
    for i, rows in enumerate(parts):
        own = kernel(x[rows], x[rows])
        sums[rows] += own.sum(axis=1) - np.diagonal(own)
        for columns in parts[i + 1 :]:
            pair = kernel(x[rows], x[columns])
            sums[rows] += pair.sum(axis=1)
            sums[columns] += pair.sum(axis=0)
    return sums


def means_between(x: Array, y: Array, kernel: Kernel) -> Array:
    """Return for each row of x the mean of its kernel with the rows of y, [n]."""
    sums = np.zeros(len(x))
    for rows in blocks(len(x)):
        for columns in blocks(len(y)):
            sums[rows] += kernel(x[rows], y[columns]).sum(axis=1)
    return sums / len(y)
