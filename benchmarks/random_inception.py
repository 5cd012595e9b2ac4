"""Inception-v3 with fixed random weights in the published file's layout, and images to show to it.

The published weights need a download. Random ones compare implementations as well, if what comes out says
something about what went in: each normalisation is calibrated on images, so that no layer dies or explodes,
and the classifier's logits differ between images as a trained one's do.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

Images = NDArray[np.uint8]
LOGIT_SPREAD = 3.0


class _Random(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """Torch-fidelity's network without reading weights."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        """Keep the random initialisation."""


def synthetic_images(count: int, size: int = 64, seed: int = 0, contrast: float = 1.0) -> Images:
    """Return coloured blobs and edges with some noise, uint8 [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : complex(size), 0 : 1 : complex(size)][..., None]
    images = np.empty((count, size, size, 3), np.uint8)
    for image in images:
        waves = rng.uniform(-25, 25, (2, 6)), rng.uniform(0, 7, 6)
        scene = np.sin(x * waves[0][0] + y * waves[0][1] + waves[1]) @ rng.normal(size=(6, 3))
        scene += np.where(x + rng.normal() * y > rng.uniform(), rng.normal(size=3), 0)
        noise = rng.normal(scale=rng.uniform(4, 12), size=scene.shape)
        image[:] = (128 + 45 * contrast * scene + noise).clip(0, 255).round()
    return images


def save_random_inception(file: Path, images: Images | None = None, seed: int = 0) -> Path:
    """Write the weights to `file` and return it.

    Args:
        file: what to write.
        images: uint8 [N, H, W, 3] to calibrate on; None for synthetic ones.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    torch.save({}, file)
    model = _Random("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))
    _randomise(model)
    batch = torch.from_numpy(synthetic_images(16) if images is None else images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        model.train()  # each normalisation notes mean and variance of what it sees
        model(batch)
        model.eval()
        _scale_classifier(model.fc, model(batch)[0])
    torch.save(model.state_dict(), file)
    return file


def _randomise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over what was seen: one batch
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0.7, 0.3)  # mostly open: sharper ones amplify round-off


def _scale_classifier(classifier: nn.Linear, features: torch.Tensor) -> None:
    """Make logits that differ between images by LOGIT_SPREAD, with no class ahead for all of them."""
    centre = features.mean(0) / features.mean(0).norm()
    weight = torch.randn(classifier.weight.shape)
    weight -= (weight @ centre)[:, None] * centre
    spread = (features @ weight.T).std(0).mean()
    classifier.weight.copy_(LOGIT_SPREAD / spread * weight)
    classifier.bias.normal_()
