"""How often a classifier was wrong about images of known class, each class counting alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.errors import InputError
from sd2eval.probes.proportions import Share, wilson
from sd2eval.statistics import standard_error


def error_rate(wrong: ArrayLike, classes: ArrayLike, groups: ArrayLike) -> Share:
    """Return the mean over classes of the share of wrong answers: Wilson's interval at the effective number.

    That is p (1 - p) / s^2 with s the standard error clustered by group (Korn and Graubard 1998), at most the
    number of images. Where no answer is wrong, or all are, groups are taken as one observation each.

    Args:
        wrong: bool [n].
        classes: [n] in 0..K-1, each with at least one image.
        groups: [n] labels of images that may be dependent (of one prompt).

    Raises:
        InputError: a class without an image, or fewer than two groups.
    """
    values, place = np.asarray(wrong, dtype=np.float64), np.asarray(classes, dtype=np.intp)
    labels = np.asarray(groups)
    sizes, count = np.bincount(place), len(np.unique(labels))
    if not len(values) or not sizes.all() or count < 2:
        raise InputError(
            "an error rate needs images of every class, and at least 2 independent groups of them"
        )
    rates = np.bincount(place, weights=values) / sizes
    value, n = float(rates.mean()), len(values)
    influence = n * (values - rates[place]) / (len(sizes) * sizes[place])
    stderr = standard_error(influence, labels)
    alike = len(sizes) ** 2 / float((1 / sizes).sum())
    effective = min(value * (1 - value) / stderr**2, n) if stderr > 0 else min(float(count), alike)
    low, high = wilson(value, effective, dof=count - 1)
    return Share(value, stderr, low, high, n, float(effective), count)
