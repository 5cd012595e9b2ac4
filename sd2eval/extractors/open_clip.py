"""OpenCLIP image and text towers: embeddings of unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
from PIL import Image

from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import Extractor, Images, features, in_batches, local_source, ready, state_digest


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load `model` with the weights `pretrained`, or with those of a local file; the model's own preprocessing.

    Raises:
        InputError: no model is named.
    """
    if config.model is None:
        raise InputError(f"extractor '{config.name}': `model` names no OpenCLIP architecture")
    model, _, transform = open_clip.create_model_and_transforms(
        config.model, pretrained=str(local_source(config)) if config.source else config.pretrained
    )

    def prepare(batch: Images) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(image)) for image in batch])

    return towers(config, model, prepare, open_clip.get_tokenizer(config.model), device)


def towers(
    config: ExtractorConfig,
    model: Any,
    prepare: Callable[[Images], torch.Tensor],
    tokenizer: Any,
    device: torch.device,
) -> Extractor:
    """Return the extractor of a CLIP with OpenCLIP's methods.

    Args:
        config: its settings.
        model: has `encode_image` and `encode_text`.
        prepare: uint8 [N, H, W, 3] to the image tower's input.
        tokenizer: texts to the text tower's input.
        device: where it runs.
    """
    digest = state_digest(model)
    model, dtype = ready(model, config, device), getattr(torch, config.dtype)

    def encode_images(batch: Images) -> torch.Tensor:
        return model.encode_image(prepare(batch).to(device, dtype), normalize=True)  # type: ignore[no-any-return]

    def encode_texts(batch: Sequence[str]) -> torch.Tensor:
        return model.encode_text(tokenizer(list(batch)).to(device), normalize=True)  # type: ignore[no-any-return]

    return Extractor(
        name=config.name,
        digest=digest,
        images=features(encode_images, config.batch_size),
        texts=in_batches(encode_texts, config.batch_size),
    )
