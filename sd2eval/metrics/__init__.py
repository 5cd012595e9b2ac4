"""The metrics by name, and how one is evaluated; `_declared` says what each is called and how to read it."""

from __future__ import annotations

from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._declared import METRICS, Kind, Metric, Part, applicable
from sd2eval.metrics._reference import Reference
from sd2eval.statistics import standard_error

__all__ = ["METRICS", "Kind", "Measurement", "Metric", "Part", "Reference", "applicable", "evaluate"]


class Measurement(NamedTuple):
    """The numbers of a `Score`, and what each sample contributed."""

    value: float
    stderr: float
    n: int
    influence: NDArray[np.float64]
    """As in `Estimate.influence`."""


COUNTERPARTS: dict[Kind, tuple[str, Any]] = {
    "distance": ("a Reference", Reference),
    "kernel": ("a Reference", Reference),
    "score": ("text embeddings", np.ndarray | list),
    "paired": ("nothing more", NoneType),
}
"""What a metric of each kind is computed against, in words and as a type."""


def evaluate(
    metric: Metric,
    features: ArrayLike,
    against: Reference | ArrayLike | None,
    groups: ArrayLike | None = None,
) -> Measurement:
    """Return value, standard error, n and influences of a metric.

    Args:
        metric: an entry of `METRICS`.
        features: of the generated images, shape [n, d], any real dtype; the values [n] of a paired metric.
        against: a `Reference` for extractor role `distance`, the captions' embeddings [n, d] for `score`,
            None for a paired metric.
        groups: COCO image id of each sample, shape [n]; captions of one image are not independent.

    Raises:
        InputError: `against` is of the other kind, or see the metric.
    """
    if not isinstance(against, COUNTERPARTS[metric.kind][1]):
        wanted = COUNTERPARTS[metric.kind][0]
        raise InputError(f"{metric.name} is computed against {wanted}, got {type(against).__name__}")
    estimate = metric.estimate(features, against)
    stderr = standard_error(estimate.influence, groups)
    return Measurement(estimate.value, stderr, estimate.n, estimate.influence)
