"""PickScore: would people pick the image, given its caption (Kirstain et al. 2023)?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.paired import mean_of_images
from sd2eval.metrics.similarity import cosines
from sd2eval.statistics import Estimate


def _score(images: ArrayLike, texts: ArrayLike) -> Estimate:
    """Return the mean of cosine x length of the text's embedding, which carries the network's scale."""
    lengths = np.linalg.norm(np.asarray(texts, dtype=np.float64), axis=1)
    return mean_of_images(cosines(images, texts) * lengths, None)


METRICS = (
    Metric(
        name="pickscore",
        label="PickScore",
        describes="Mean of exp(logit_scale) x cosine of an image's and its caption's embeddings in "
        "PickScore v1, a ViT-H/14 tuned on what people pick; a difference of two is a logit.",
        direction="higher",
        unit="logit",
        kind="other",
        extractor="pickscore",
        needs=("pickscore",),
        against="texts",
        claim=claim("mean_of_images"),
        estimate=_score,
    ),
)
