"""Inception Score: sure and varied classes, without any reference."""

from __future__ import annotations

from numpy.typing import ArrayLike

from sd2eval.metrics.claims import claim
from sd2eval.metrics.inception_score import inception_score
from sd2eval.metrics.metric import Metric
from sd2eval.statistics import Estimate


def _score(logits: ArrayLike, against: None) -> Estimate:
    return inception_score(logits)


METRICS = (
    Metric(
        name="inception_score",
        label="Inception Score",
        describes="How sure Inception-v3 is of each image's class, and how evenly the classes are filled.",
        direction="higher",
        unit="classes",
        kind="other",
        extractor="distance",
        output="logits",
        needs=("inception",),
        claim=claim("inception_score"),
        estimate=_score,
    ),
)
