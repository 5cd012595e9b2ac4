"""Metrics that are a mean of one number per image: how a generated image compares with the caption's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.errors import InputError
from sd2eval.statistics import Estimate


def mean_of_images(values: ArrayLike, against: None = None) -> Estimate:
    """Return the mean of one value per image, with each image's influence x_i - mean.

    Args:
        values: shape [n], n >= 2, finite; what they compare was measured where the images were at hand.
        against: nothing; the comparison is in the values.

    Raises:
        InputError: another shape, fewer than two, not real numbers, NaN or infinity.
    """
    array = np.asarray(values)
    if array.ndim != 1 or len(array) < 2:
        raise InputError(f"image values: expected shape [n] with n >= 2, got {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"image values: expected floating point numbers, got {array.dtype}")
    wide = array.astype(np.float64)
    bad = ~np.isfinite(wide)
    if bad.any():
        raise InputError(
            f"image values: NaN or infinity in {int(bad.sum())} of {len(wide)}, first in row {np.argmax(bad)}"
        )
    value = float(wide.mean())
    return Estimate(value, wide - value)
