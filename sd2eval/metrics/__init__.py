"""The metrics by name; a metric's direction, unit and label are declared here and nowhere else.

Adding one: a pure function of arrays that returns an `Estimate`, and an entry of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_varied_features
from sd2eval.metrics.frechet import FrechetReference, frechet_distance, frechet_reference, gaussian
from sd2eval.metrics.kernel import KernelReference, kernel_distance, kernel_reference
from sd2eval.metrics.similarity import mean_cosine
from sd2eval.records import Direction
from sd2eval.statistics import Estimate, standard_error

__all__ = ["METRICS", "Kind", "Measurement", "Metric", "Reference", "evaluate"]

Kind = Literal["distance", "kernel", "score"]


class Reference:
    """Features of the reference images; what the metrics derive from them is computed once, at first use."""

    def __init__(self, features: ArrayLike) -> None:
        """Take features [m, d], m >= 2, finite, not all rows identical.

        Raises:
            InputError: they are not.
        """
        self.features: NDArray[np.float64] = as_varied_features(features, "reference features")

    def __len__(self) -> int:
        """Return the number of reference images."""
        return len(self.features)

    @cached_property
    def frechet(self) -> FrechetReference:
        """Factorised moments, for `frechet_distance`."""
        return frechet_reference(gaussian(self.features))

    @cached_property
    def kernel(self) -> KernelReference:
        """Features with their mean kernel, for `kernel_distance`."""
        return kernel_reference(self.features)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric is called, how to read it, and how to compute it."""

    name: str
    """Key in `METRICS` and in results; `fid`, `kid`, `clip_score` always mean the real extractors."""
    label: str
    """Name for axes and table heads."""
    describes: str
    """One sentence for people who meet the metric for the first time."""
    direction: Direction
    unit: str
    kind: Kind
    """Role in a study: `distance` is the plot's y axis, `score` its x axis, `kernel` an unbiased distance."""
    extractor_role: Literal["distance", "score"]
    """Which of a protocol's two extractors makes the features."""
    mini: bool
    """Computed with the extractors of the embedded mini world; not comparable with any published number."""
    factor: float = 1.0
    """Tables show value x factor, and say so; results always hold the plain value."""
    estimate: Callable[[Any, Any], Estimate]
    """Takes (features [n, d], `Reference`) in role `distance`, (image, text embeddings [n, d]) in `score`."""


class Measurement(NamedTuple):
    """The numbers of a `Score`."""

    value: float
    stderr: float
    n: int


def evaluate(
    metric: Metric,
    features: ArrayLike,
    against: Reference | ArrayLike,
    groups: ArrayLike | None = None,
) -> Measurement:
    """Return value, standard error and n of a metric.

    Args:
        metric: an entry of `METRICS`.
        features: of the generated images, shape [n, d], any real dtype.
        against: a `Reference` for extractor role `distance`, the captions' embeddings [n, d] for `score`.
        groups: COCO image id of each sample, shape [n]; captions of one image are not independent.

    Raises:
        InputError: `against` is of the other kind, or see the metric.
    """
    if (metric.extractor_role == "distance") != isinstance(against, Reference):
        wanted = "a Reference" if metric.extractor_role == "distance" else "text embeddings"
        raise InputError(f"{metric.name} is computed against {wanted}, got {type(against).__name__}")
    estimate = metric.estimate(features, against)
    return Measurement(estimate.value, standard_error(estimate.influence, groups), estimate.n)


def _frechet(features: ArrayLike, reference: Reference) -> Estimate:
    return frechet_distance(features, reference.frechet)


def _kernel(features: ArrayLike, reference: Reference) -> Estimate:
    return kernel_distance(features, reference.kernel)


_FID = Metric(
    name="fid",
    label="FID",
    describes="Frechet distance between Inception-v3 features of generated and real images.",
    direction="lower",
    unit="squared feature distance",
    kind="distance",
    extractor_role="distance",
    mini=False,
    estimate=_frechet,
)
_KID = Metric(
    name="kid",
    label="KID",
    describes="Unbiased kernel distance between Inception-v3 features of generated and real images.",
    direction="lower",
    unit="squared MMD",
    kind="kernel",
    extractor_role="distance",
    mini=False,
    factor=1000.0,  # the field quotes KID in thousandths
    estimate=_kernel,
)
_CLIP_SCORE = Metric(
    name="clip_score",
    label="CLIP score",
    describes="Mean raw cosine of an image's and its caption's OpenCLIP embeddings.",
    direction="higher",
    unit="cosine",
    kind="score",
    extractor_role="score",
    mini=False,
    estimate=mean_cosine,
)
_MINI = (
    replace(
        _FID,
        name="fd_mini",
        label="FD (mini)",
        describes="Frechet distance between the mini classifier's features of generated and rendered scenes.",
        mini=True,
    ),
    replace(
        _KID,
        name="kid_mini",
        label="KD (mini)",
        describes="Unbiased kernel distance between the mini classifier's features of both sets of scenes.",
        mini=True,
    ),
    replace(
        _CLIP_SCORE,
        name="clip_mini",
        label="CLIP (mini)",
        describes="Mean raw cosine of an image's and its caption's embeddings in the mini CLIP.",
        mini=True,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in (_FID, _KID, _CLIP_SCORE, *_MINI)}
"""Every metric by name, in the order of tables."""
