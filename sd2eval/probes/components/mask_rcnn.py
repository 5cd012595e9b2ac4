"""Mask R-CNN (He et al. 2017) of torchvision, trained on COCO: objects of 80 kinds, with masks.

Options: `least`, the smallest score that is told at all (default 0.3); `most`, objects per kind (default
16); `side`, pixels that an image's shorter side is brought to (default 800, its authors').
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ComponentConfig
from sd2eval.probes.components import _torchvision
from sd2eval.probes.components.base import loading
from sd2eval.probes.sightings import Found, Rectangle

PACKAGES = ("torchvision",)
LEAST, MOST = 0.3, 16
MASK = 0.5
"""Probability from which a pixel belongs to an object."""


@dataclass(frozen=True, kw_only=True)
class MaskRCNN:
    """Finds objects by COCO's names."""

    name: str
    digest: str
    network: Any
    labels: tuple[str, ...]
    device: torch.device
    batch_size: int
    least: float
    most: int

    def detect(self, images: NDArray[np.uint8]) -> list[list[Found]]:
        """Return the objects of each image, uint8 [N, H, W, 3], best first."""
        found = _torchvision.answers(self.network, images, self.device, self.batch_size)
        return [self._objects(one) for one in found]

    def _objects(self, answer: _torchvision.Answer) -> list[Found]:
        objects: list[Found] = []
        told: Counter[str] = Counter()
        for index in answer["scores"].argsort(descending=True):
            score, label = float(answer["scores"][index]), self.labels[int(answer["labels"][index])]
            if score < self.least or told[label] == self.most:
                continue
            told[label] += 1
            box: Rectangle = tuple(answer["boxes"][index].tolist())
            mask = (answer["masks"][index, 0] > MASK).numpy()
            objects.append(Found(label=label, score=score, box=box, mask=mask))
        return objects


def needs(config: ComponentConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return _torchvision.published(config)


def load(config: ComponentConfig, device: torch.device) -> MaskRCNN:
    """Load the network in its second recipe (`maskrcnn_resnet50_fpn_v2`).

    Raises:
        Unavailable: the weights cannot be had, are damaged or another network's.
    """
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights as Weights
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    with loading(config):
        file = _torchvision.weights(config)
        network = maskrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, min_size=_torchvision.side(config)
        )
        network, digest = _torchvision.ready(network, file, device)
    return MaskRCNN(
        name=config.name,
        digest=digest,
        network=network,
        labels=tuple(Weights.COCO_V1.meta["categories"]),
        device=device,
        batch_size=config.batch_size,
        least=float(config.options.get("least", LEAST)),
        most=int(config.options.get("most", MOST)),
    )
