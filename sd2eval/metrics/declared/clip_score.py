"""CLIP score: how well image and caption agree, by the protocol's own network or by a named one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.paired import mean_of_images
from sd2eval.metrics.similarity import cosines, mean_cosine
from sd2eval.statistics import Estimate


def hundredfold(images: ArrayLike, texts: ArrayLike) -> Estimate:
    """Return the mean of 100 x cosine, each floored at 0 (torchmetrics' CLIPScore), with its influences."""
    return mean_of_images(np.maximum(100.0 * cosines(images, texts), 0.0), None)


CLIP_SCORE = Metric(
    name="clip_score",
    label="CLIP score",
    describes="Mean raw cosine of an image's and its caption's OpenCLIP embeddings.",
    direction="higher",
    unit="cosine",
    kind="score",
    extractor="score",
    needs=("open_clip",),
    against="texts",
    claim=claim("mean_cosine"),
    estimate=mean_cosine,
)


def _by(model: str, label: str) -> Metric:
    return replace(
        CLIP_SCORE,
        name=f"clip_score_{model}",
        label=f"CLIP score ({label})",
        describes=f"Mean raw cosine of an image's and its caption's embeddings in {label}.",
        extractor=f"open_clip_vit_{model}",
    )


METRICS = (
    CLIP_SCORE,
    replace(
        CLIP_SCORE,
        name="clip_score_x100",
        label="CLIP score x100",
        describes="Mean of 100 x cosine, each floored at 0, of the same embeddings as `clip_score`.",
        unit="100 x cosine",
        claim=claim("mean_of_images"),
        estimate=hundredfold,
    ),
    _by("g_14", "ViT-g/14"),
    _by("h_14", "ViT-H/14"),
    _by("l_14", "ViT-L/14"),
    _by("b_32", "ViT-B/32"),
    replace(
        CLIP_SCORE,
        name="clip_mini",
        label="CLIP (mini)",
        describes="Mean raw cosine of an image's and its caption's embeddings in the mini CLIP.",
        needs=("mini_clip",),
        mini=True,
    ),
)
