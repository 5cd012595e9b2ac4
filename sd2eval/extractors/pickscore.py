"""PickScore v1 (Kirstain et al. 2023): CLIP ViT-H/14, tuned on which of two images people picked.

Preprocessing and tokens are those of the authors' processor, `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`: its
images go through Pillow, and its vocabulary is OpenAI's, which open_clip carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from sd2eval.checkpoints.text import published_clip_tokenizer
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors._published import only_own_preprocessing, published_file, tensors
from sd2eval.extractors.base import (
    Extractor,
    Images,
    features,
    in_batches,
    ready,
    state_digest,
)

FILE = "model.safetensors"
COUNTERS = tuple(f"{part}_model.embeddings.position_ids" for part in ("text", "vision"))
"""0, 1, 2, ... in files of older transformers."""


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return () if config.source or config.pretrained is None else (config.pretrained,)


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it from a folder in transformers layout.

    `features` have unit length, `texts` length exp(logit_scale): their product is the score.

    Raises:
        InputError: the folder does not hold this network.
    """
    only_own_preprocessing(config)
    model = _network(WeightsFile(published_file(config, FILE)))
    digest = state_digest(model)
    model, dtype = ready(model, config, device), getattr(torch, config.dtype)
    transform = open_clip.image_transform(model.config.vision_config.image_size, is_train=False)
    tokenizer, context = published_clip_tokenizer(), model.config.text_config.max_position_embeddings

    def encode_images(batch: Images) -> torch.Tensor:
        pixels = torch.stack([transform(Image.fromarray(image)) for image in batch]).to(device, dtype)
        return unit(model.get_image_features(pixel_values=pixels).pooler_output)

    def encode_texts(batch: Sequence[str]) -> torch.Tensor:
        tokens = tokenizer(
            list(batch), padding=True, truncation=True, max_length=context, return_tensors="pt"
        )
        found = unit(model.get_text_features(**tokens.to(device)).pooler_output)
        scaled: torch.Tensor = model.logit_scale.exp().float() * found
        return scaled

    return Extractor(
        name=config.name,
        digest=digest,
        images=features(encode_images, config.batch_size),
        texts=in_batches(encode_texts, config.batch_size),
    )


def unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Return embeddings [N, d] as float32 of unit length."""
    return torch.nn.functional.normalize(embeddings.float(), dim=-1)


def _network(weights: WeightsFile) -> CLIPModel:
    """Return the network that the `config.json` beside a file describes, with the file's tensors.

    Raises:
        InputError: there is no such description, or the file does not fit it.
    """
    described = weights.path.with_name("config.json")
    if not described.is_file():
        raise InputError(f"{weights.path}: no config.json beside it; give the whole folder")
    try:
        config = CLIPConfig.from_json_file(str(described))
        with torch.device("meta"):
            expected = {name: tensor.shape for name, tensor in CLIPModel(config).state_dict().items()}
    except Exception as error:  # whatever the libraries raise on values that make no network
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{described}: describes no CLIP ({reason})") from error
    state = tensors(weights, expected, {name: name for name in expected}, COUNTERS)
    return CLIPModel.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
