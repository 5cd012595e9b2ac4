"""Keypoint R-CNN (He et al. 2017) of torchvision, trained on COCO: people and 17 points of each.

Options: `least`, the smallest score that is told at all (default 0.5); `side`, pixels that an image's shorter
side is brought to (default 800, its authors').
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ComponentConfig
from sd2eval.probes.components import _torchvision
from sd2eval.probes.components.base import loading
from sd2eval.probes.sightings import KEYPOINTS, Person

PACKAGES = ("torchvision",)
LEAST = 0.5


@dataclass(frozen=True, kw_only=True)
class KeypointRCNN:
    """Finds people and their points."""

    name: str
    digest: str
    network: Any
    device: torch.device
    batch_size: int
    least: float

    def people(self, images: NDArray[np.uint8]) -> list[list[Person]]:
        """Return the people of each image, uint8 [N, H, W, 3], best first."""
        found = _torchvision.answers(self.network, images, self.device, self.batch_size)
        return [self._people(one) for one in found]

    def _people(self, answer: _torchvision.Answer) -> list[Person]:
        order = [i for i in answer["scores"].argsort(descending=True) if answer["scores"][i] >= self.least]
        return [
            Person(
                score=float(answer["scores"][index]),
                box=tuple(answer["boxes"][index].tolist()),
                points=answer["keypoints"][index, :, :2].numpy(),
                certainty=answer["keypoints_scores"][index].numpy(),
            )
            for index in order
        ]


def needs(config: ComponentConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return _torchvision.published(config)


def load(config: ComponentConfig, device: torch.device) -> KeypointRCNN:
    """Load the network as torchvision runs the published weights: normalisation frozen, its epsilon 0.

    Raises:
        Unavailable: the weights cannot be had, are damaged or another network's.
    """
    with loading(config):
        network, digest = _torchvision.ready(
            architecture(_torchvision.side(config)), _torchvision.weights(config), device
        )
    return KeypointRCNN(
        name=config.name,
        digest=digest,
        network=network,
        device=device,
        batch_size=config.batch_size,
        least=float(config.options.get("least", LEAST)),
    )


def architecture(side: int = _torchvision.SIDE) -> Any:
    """Return the network with random values.

    torchvision's own function gives another normalisation when it is not told to fetch weights.
    """
    from torchvision.models.detection import KeypointRCNN as Network
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    network = Network(backbone, num_classes=2, num_keypoints=len(KEYPOINTS), min_size=side)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return network
