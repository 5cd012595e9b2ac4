"""FD-DINOv2: a Frechet distance closer to people's judgement than Inception's (Stein et al. 2023)."""

from __future__ import annotations

from dataclasses import replace

from sd2eval.metrics.declared.fid import FID

METRICS = (
    replace(
        FID,
        name="fd_dinov2",
        label="FD-DINOv2",
        describes="Frechet distance between DINOv2 ViT-L/14 features of generated and real images.",
        extractor="dinov2_vit_l_14",
        needs=("dinov2",),
    ),
)
