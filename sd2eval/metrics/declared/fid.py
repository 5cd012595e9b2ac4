"""FID and KID: distances of feature distributions, by the protocol's own network."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import ArrayLike

from sd2eval.metrics.claims import claim
from sd2eval.metrics.frechet import frechet_distance
from sd2eval.metrics.kernel import kernel_distance
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.reference import Reference
from sd2eval.statistics import Estimate


def _frechet(features: ArrayLike, reference: Reference) -> Estimate:
    return frechet_distance(features, reference.frechet)


def _kernel(features: ArrayLike, reference: Reference) -> Estimate:
    return kernel_distance(features, reference.kernel)


FID = Metric(
    name="fid",
    label="FID",
    describes="Frechet distance between Inception-v3 features of generated and real images.",
    direction="lower",
    unit="squared feature distance",
    kind="distance",
    extractor="distance",
    needs=("inception",),
    against="reference",
    claim=claim("frechet_distance"),
    estimate=_frechet,
)
KID = Metric(
    name="kid",
    label="KID",
    describes="Unbiased kernel distance between Inception-v3 features of generated and real images.",
    direction="lower",
    unit="squared MMD",
    kind="kernel",
    extractor="distance",
    needs=("inception",),
    against="reference",
    factor=1000.0,  # the field quotes KID in thousandths
    claim=claim("kernel_distance"),
    estimate=_kernel,
)
METRICS = (
    FID,
    KID,
    replace(
        FID,
        name="fd_mini",
        label="FD (mini)",
        describes="Frechet distance between the mini classifier's features of generated and rendered scenes.",
        needs=("mini_classifier",),
        mini=True,
    ),
    replace(
        KID,
        name="kid_mini",
        label="KD (mini)",
        describes="Unbiased kernel distance between the mini classifier's features of both sets of scenes.",
        needs=("mini_classifier",),
        mini=True,
    ),
)
