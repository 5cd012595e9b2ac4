"""Precision, recall, density and coverage in the features of the protocol's distance network."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

from numpy.typing import ArrayLike

from sd2eval.metrics import neighbours
from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.neighbours import DENSITY_K, PRECISION_K
from sd2eval.metrics.reference import Reference
from sd2eval.statistics import Estimate

K = {"precision": PRECISION_K, "recall": PRECISION_K, "density": DENSITY_K, "coverage": DENSITY_K}
"""Nearest neighbours."""
_DESCRIBES = {
    "precision": "Share of generated images among the nearest neighbours (3) of real ones: realism.",
    "recall": "Share of real images among the nearest neighbours (3) of generated ones: variety.",
    "density": "How many neighbourhoods (5) of real images a generated one lies in, divided by 5.",
    "coverage": "Share of real images with a generated one among their nearest neighbours (5).",
}


def _metric(name: str, describes: str) -> Metric:
    function = getattr(neighbours, name)
    of = attrgetter("precision" if K[name] == PRECISION_K else "density")

    def estimate(features: ArrayLike, reference: Reference) -> Estimate:
        found: Estimate = function(features, of(reference))
        return found

    return Metric(
        name=name,
        label=name,
        describes=describes,
        direction="higher",
        unit="ratio" if name == "density" else "share",
        kind="other",
        extractor="distance",
        needs=("inception",),
        against="reference",
        smallest=K[name] + 2 if name == "recall" else 2,  # its jackknife leaves one out
        smallest_reference=K[name] + 1,
        claim=claim(name),
        estimate=estimate,
    )


_REAL = tuple(_metric(name, describes) for name, describes in _DESCRIBES.items())
_MINI = tuple(
    replace(
        metric,
        name=f"{metric.name}_mini",
        label=f"{metric.label} (mini)",
        needs=("mini_classifier",),
        mini=True,
    )
    for metric in _REAL
)
METRICS = (*_REAL, *_MINI)
