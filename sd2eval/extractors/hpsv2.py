"""Human Preference Score v2 (Wu et al. 2023): OpenCLIP ViT-H/14, tuned on which images people preferred.

Preprocessing follows the authors' `hpsv2/img_score.py` and their OpenCLIP's `ResizeMaxSize`: to [0, 1] first,
then bicubic to the longer side, so that values may leave [0, 1]; OpenCLIP itself resizes 8-bit images. Theirs
runs in float16 on a GPU, this in float32.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import open_clip
import torch
from torchvision.transforms import InterpolationMode, functional

from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors._published import published_file
from sd2eval.extractors._weights import fill
from sd2eval.extractors.base import Extractor, Images
from sd2eval.extractors.open_clip import towers

FILE = "HPS_v2.1_compressed.pt"
ANTIALIAS = {None: True, "antialias": True, "aliased": False}
"""By `preprocess`. The authors leave it to torchvision, which did not antialias tensors before its 0.17."""


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return () if config.source or config.pretrained is None else (config.pretrained,)


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load OpenCLIP's `model` with the authors' weights; features and texts of unit length.

    Raises:
        InputError: no such model or preprocessing, or the file is not this network's.
    """
    if config.preprocess not in ANTIALIAS:
        allowed = ", ".join(str(name or "null") for name in ANTIALIAS)
        raise InputError(f"extractor '{config.name}': preprocess must be one of {allowed}")
    architecture = open_clip.get_model_config(config.model or "")
    if architecture is None:
        raise InputError(f"extractor '{config.name}': '{config.model}' is no OpenCLIP architecture")
    file = published_file(config, FILE)
    model = open_clip.model.CLIP(**architecture)
    fill(model, file)
    size = architecture["vision_cfg"]["image_size"]
    prepare = partial(pixels, size=size, antialias=ANTIALIAS[config.preprocess])
    return towers(config, model, prepare, open_clip.get_tokenizer(config.model), device)


def pixels(batch: Images, size: int, *, antialias: bool) -> torch.Tensor:
    """Return images as the network takes them: the longer side fills the input, black the rest.

    Args:
        batch: uint8 [N, H, W, 3].
        size: R of the result.
        antialias: where the images are made smaller.

    Returns:
        float32 [N, 3, R, R].
    """
    images = torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).float() / 255.0
    sides = [round(side * size / max(images.shape[2:])) for side in images.shape[2:]]
    images = functional.resize(images, sides, InterpolationMode.BICUBIC, antialias=antialias)
    high, wide = (size - side for side in sides)
    images = functional.pad(images, [wide // 2, high // 2, wide - wide // 2, high - high // 2])
    ready: torch.Tensor = functional.normalize(
        images, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    return ready
