"""DINOv2 (Oquab et al. 2023) as FD-DINOv2 takes it (Stein et al. 2023, their package dgm-eval).

The class token after the last normalisation, 1,024 numbers in ViT-L/14. Images are squeezed to 224 x 224 as
8-bit images by Pillow's bicubic filter (which has antialiasing), whatever their shape, and normalised by
ImageNet's mean and deviation.

The positions were learned for 518 pixels and are interpolated to 224. DINOv2's authors do that with a grid
step of 37 / 16.1 (an offset of 0.1 against rounding), transformers with one of 37 / 16: not the same numbers.
dgm-eval runs the authors' code, so the interpolation here is theirs; the network is transformers'.
torch-fidelity 0.4 has the same network and normalisation, but resizes like TensorFlow 1, bilinear without
antialiasing: its numbers differ for images of any other size than 224.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from sd2eval.checkpoints.networks import load_whole
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors._published import only_own_preprocessing
from sd2eval.extractors._weights import refuse_not_finite
from sd2eval.extractors.base import Extractor, Images, features, local_source, ready, state_digest
from sd2eval.weights.models import obtain

PIXELS = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, by colour."""
OFFSET = 0.1
"""What the authors add to the number of patches when they interpolate positions."""


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return () if config.source else (config.name,)


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it from a folder in transformers' layout, `config.json` and `model.safetensors`; features [N, d].

    Raises:
        InputError: the weights cannot be had, are incomplete, damaged or another network's.
    """
    from transformers import Dinov2Model

    only_own_preprocessing(config)
    folder = local_source(config) if config.source else obtain(config.name).parent
    model = load_whole(Dinov2Model, folder, dtype=torch.float32)
    refuse_not_finite(model, folder / "model.safetensors")
    digest = state_digest(model)
    _fit_positions(model.embeddings, folder)
    model, dtype = ready(model, config, device), getattr(torch, config.dtype)

    def encode(batch: Images) -> torch.Tensor:
        tokens: torch.Tensor = model(prepare(batch).to(device, dtype)).last_hidden_state
        return tokens[:, 0]

    return Extractor(name=config.name, digest=digest, images=features(encode, config.batch_size))


def prepare(images: Images) -> torch.Tensor:
    """Return the network's input, float32 [N, 3, 224, 224], of uint8 [N, H, W, 3]."""
    size = (PIXELS, PIXELS)
    resized = [Image.fromarray(image).resize(size, Image.Resampling.BICUBIC) for image in images]
    pixels = (
        torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2).float() / 255
    )
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


def positions(learned: torch.Tensor, side: int) -> torch.Tensor:
    """Interpolate positions of patches as DINOv2's authors do.

    Args:
        learned: shape [1, 1 + n * n, d], the class token's first.
        side: how many patches are wanted in a row and in a column.

    Returns:
        shape [1, 1 + side * side, d].
    """
    before = math.isqrt(learned.shape[1] - 1)
    if before == side:
        return learned
    grid = learned[:, 1:].reshape(1, before, before, -1).permute(0, 3, 1, 2)
    # The factor, not the size, must be given: it decides where the new positions lie.
    fitted = interpolate(grid, scale_factor=(side + OFFSET) / before, mode="bicubic")
    return torch.cat([learned[:, :1], fitted.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _fit_positions(embeddings: Any, folder: Path) -> None:
    """Replace a network's positions by those for 224 pixels, which transformers then leaves as they are."""
    side, learned = PIXELS // embeddings.config.patch_size, embeddings.position_embeddings
    count = learned.shape[1] - 1
    if math.isqrt(count) ** 2 != count:
        raise InputError(f"{folder}: has positions for {count} patches, which fill no square")
    embeddings.position_embeddings = torch.nn.Parameter(positions(learned.detach(), side))
