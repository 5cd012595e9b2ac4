"""What every metric demands of its arrays; a broken input is named, it never becomes a number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError

Array = NDArray[np.float64]

_LARGEST = 1e50  # the sixth power, which the kernel needs, still fits in float64


def as_features(values: ArrayLike, what: str) -> Array:
    """Return the features as float64 [n, d] with n >= 2 and every value finite and below 1e50.

    Args:
        values: shape [n, d], any real dtype; float16 and float32 are widened before any arithmetic.
        what: how the array is called in messages, such as "image features".

    Raises:
        InputError: another number of axes, fewer than two rows, no columns, not real numbers, NaN, infinity
            or absurd size.
    """
    array = np.asarray(values)
    if array.ndim != 2:
        raise InputError(f"{what}: expected shape [n, d], got {list(array.shape)}")
    if len(array) < 2:
        raise InputError(f"{what}: at least 2 rows are needed, got {len(array)}")
    if array.shape[1] == 0:
        raise InputError(f"{what}: the rows are empty (d = 0)")
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise InputError(f"{what}: expected real numbers, got {array.dtype}")
    wide = array.astype(np.float64, copy=False)
    bad = ~(np.abs(wide) < _LARGEST).all(axis=1)  # also where NaN
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{what}: NaN, infinity or beyond {_LARGEST:g} in {int(bad.sum())} of {len(wide)} rows, "
            f"first in row {first}"
        )
    return wide


def as_varied_features(values: ArrayLike, what: str) -> Array:
    """Return `as_features`, refusing rows that are all the same: constant images or a broken extractor."""
    array = as_features(values, what)
    if (array == array[0]).all():
        raise InputError(f"{what}: all {len(array)} rows are equal (constant images or a broken extractor)")
    return array


def require_same_width(a: Array, b_width: int, what: str, other: str) -> None:
    """Refuse features of different extractors, as far as their width tells."""
    if a.shape[1] != b_width:
        raise InputError(f"{what} have d = {a.shape[1]}, {other} d = {b_width}: not the same extractor")


def directions(embeddings: Array, what: str) -> Array:
    """Return the rows divided by their length, [n, d].

    Raises:
        InputError: a row is zero and has no direction.
    """
    # Scaled first: the square of a tiny but honest row would underflow to zero.
    largest = np.abs(embeddings).max(axis=1, keepdims=True)
    if (largest == 0).any():
        raise InputError(f"{what}: row {int(np.argmin(largest))} is zero and has no direction")
    scaled = embeddings / largest
    unit: Array = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit
