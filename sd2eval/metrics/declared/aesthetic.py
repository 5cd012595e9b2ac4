"""Aesthetic score: what LAION's predictors say people would rate an image, about 1 to 10."""

from __future__ import annotations

from dataclasses import replace

from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.paired import mean_of_images

_V2 = Metric(
    name="aesthetic",
    label="aesthetic score",
    describes="Mean rating (about 1 to 10) by the predictor that the card's training data was chosen with.",
    direction="higher",
    unit="rating",
    kind="other",
    extractor="aesthetic_v2",
    output="value",
    needs=("clip_head",),
    claim=claim("mean_of_images"),
    estimate=mean_of_images,
)
METRICS = (
    _V2,
    replace(
        _V2,
        name="aesthetic_v1",
        label="aesthetic score (V1)",
        describes="Mean rating (about 1 to 10) by LAION's first predictor, one linear layer.",
        extractor="aesthetic_v1",
    ),
)
