"""FID without the bias of a finite number of images, for runs of different size."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import ArrayLike

from sd2eval.metrics.claims import claim
from sd2eval.metrics.frechet_infinity import frechet_infinity
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.reference import Reference
from sd2eval.statistics import Estimate


def _infinity(features: ArrayLike, reference: Reference) -> Estimate:
    return frechet_infinity(features, reference.frechet)


_REAL = Metric(
    name="fid_infinity",
    label="FID-infinity",
    describes="FID extrapolated to infinitely many images from subsets: comparable between different n.",
    direction="lower",
    unit="squared feature distance",
    kind="other",
    extractor="distance",
    needs=("inception",),
    against="reference",
    smallest=9,
    claim=claim("frechet_infinity"),
    estimate=_infinity,
)
METRICS = (
    _REAL,
    replace(
        _REAL,
        name="fd_infinity_mini",
        label="FD-infinity (mini)",
        describes="FD (mini) extrapolated to infinitely many images from subsets.",
        needs=("mini_classifier",),
        mini=True,
    ),
)
