"""The mini world's analytic detector: shapes by silhouette, colours by hue; no training, no weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ComponentConfig
from sd2eval.mini import detector, render, world
from sd2eval.probes.components.base import files_digest
from sd2eval.probes.sightings import Found


@dataclass(frozen=True, kw_only=True)
class MiniDetector:
    """Finds the world's objects with their colours."""

    name: str
    digest: str

    def detect(self, images: NDArray[np.uint8]) -> list[list[Found]]:
        """Return the objects of each image, uint8 [N, R, R, 3], from left to right."""
        return [[_found(one) for one in detector.detect(image)] for image in images]


def load(config: ComponentConfig, device: torch.device) -> MiniDetector:
    """Return the detector; its digest is that of its program."""
    from pathlib import Path

    files = [Path(str(module.__file__)) for module in (detector, render, world)]
    return MiniDetector(name=config.name, digest=files_digest(files))


def _found(one: detector.Detected) -> Found:
    return Found(label=one.shape, score=one.fit, box=one.box, colour=one.colour)
