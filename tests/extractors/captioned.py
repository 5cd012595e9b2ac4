"""What the tests of networks that judge images with their captions share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ExtractorConfig

CPU = torch.device("cpu")
CAPTIONS = [
    "a red ball",
    "Two men, one of them in a hat, stand on a train platform next to a very long yellow train.",
    "a cat's bed",
]
Images = NDArray[np.uint8]


def scenes(count: int = 3, side: int = 48, seed: int = 0) -> Images:
    """Images [N, side, side, 3] of noise in blocks, so that they survive a resize."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return noise.repeat(-(-side // 6), axis=1).repeat(-(-side // 6), axis=2)[:, :side, :side]


def config(
    kind: str,
    source: Path | None,
    *,
    preprocess: str | None = None,
    batch_size: int = 2,
    **settings: str | None,
) -> ExtractorConfig:
    return ExtractorConfig(
        name=kind,
        kind=kind,
        model=settings.get("model"),
        pretrained=settings.get("pretrained"),
        source=source and str(source),
        preprocess=preprocess,
        dtype="float32",
        batch_size=batch_size,
    )
