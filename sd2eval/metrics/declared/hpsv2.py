"""HPSv2: would people prefer the image, given its caption (Wu et al. 2023)?"""

from __future__ import annotations

from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.similarity import mean_cosine

METRICS = (
    Metric(
        name="hpsv2",
        label="HPS v2.1",
        describes="Mean raw cosine of an image's and its caption's embeddings in HPS v2.1, a ViT-H/14 tuned "
        "on what people prefer; tables show it x 100, as its authors do.",
        direction="higher",
        unit="cosine",
        kind="other",
        extractor="hpsv2",
        needs=("hpsv2",),
        against="texts",
        factor=100.0,
        claim=claim("mean_cosine"),
        estimate=mean_cosine,
    ),
)
