"""CMMD: a kernel distance of CLIP embeddings (Jayasumana et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import ArrayLike

from sd2eval.metrics.claims import claim
from sd2eval.metrics.clip_mmd import clip_mmd
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.reference import Reference
from sd2eval.statistics import Estimate


def _distance(embeddings: ArrayLike, reference: Reference) -> Estimate:
    return clip_mmd(embeddings, reference.clip)


_CMMD = Metric(
    name="cmmd",
    label="CMMD",
    describes="Kernel distance of CLIP ViT-L/14-336 embeddings of generated and real images.",
    direction="lower",
    unit="squared MMD",
    kind="other",
    extractor="clip_vit_l_14_336",
    needs=("open_clip",),
    against="reference",
    factor=1000.0,  # as in the paper
    claim=claim("clip_mmd"),
    estimate=_distance,
)
METRICS = (
    _CMMD,
    replace(
        _CMMD,
        name="cmmd_mini",
        label="CMMD (mini)",
        describes="The same kernel distance of the mini CLIP's embeddings.",
        extractor="score",
        needs=("mini_clip",),
        mini=True,
    ),
)
