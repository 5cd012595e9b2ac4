"""ImageReward: how would people rate the image for its caption (Xu et al. 2023)?"""

from __future__ import annotations

from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.paired import mean_of_images

METRICS = (
    Metric(
        name="image_reward",
        label="ImageReward",
        describes="Mean reward of an image and its caption by ImageReward v1.0, normalised by its "
        "authors' mean and standard deviation.",
        direction="higher",
        unit="standard deviations",
        kind="other",
        extractor="image_reward",
        output="value",
        needs=("image_reward",),
        claim=claim("mean_of_images"),
        estimate=mean_of_images,
    ),
)
