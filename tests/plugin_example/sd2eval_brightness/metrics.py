"""Mean brightness. Imported by every verb that shows scores: no torch here."""

from __future__ import annotations

from sd2eval.metrics import Metric, claim, mean_of_images

METRICS = (
    Metric(
        name="brightness",
        label="brightness",
        describes="Mean luma of the images, 0 black to 1 white.",
        direction="higher",
        unit="share of white",
        kind="other",
        extractor="brightness",  # conf/extractor/brightness.yaml
        output="value",
        needs=("luma",),
        claim=claim("mean_of_images"),
        estimate=mean_of_images,
    ),
)
