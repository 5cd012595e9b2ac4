"""OpenCLIP image and text towers: embeddings of unit length.

`model` names the architecture and `pretrained` the weights, as open_clip calls them. The file comes from
`source` or the table of published weights, never by open_clip's own download. open_clip knows nothing more of
a local file than its tensors; here `pretrained` says what belongs to the weights and changes numbers
silently where it is wrong: the activation (OpenAI's networks have QuickGELU, under the same architecture
name) and the normalisation (laion2b_s32b_b82k has a mean of its own). Positions of another image size are
refused, where open_clip would interpolate them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors._published import only_own_preprocessing
from sd2eval.extractors._weights import fill
from sd2eval.extractors.base import Extractor, Images, features, in_batches, local_source, ready, state_digest
from sd2eval.weights.models import obtain
from sd2eval.weights.published import published

Prepare = Callable[[Images], torch.Tensor]
TRANSFORM = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip knows of the preprocessing of published weights."""


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load `model` with the weights `pretrained`, or with those of a local file in the same layout.

    Raises:
        InputError: `model` or `pretrained` is none that open_clip knows; the weights cannot be had, are
            another network's or damaged.
    """
    model, prepare = architecture(config)
    fill(model, local_source(config) if config.source else obtain(published_name(config)))
    return towers(config, model, prepare, open_clip.get_tokenizer(str(config.model)), device)


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return () if config.source else (published_name(config),)


def architecture(config: ExtractorConfig) -> tuple[Any, Prepare]:
    """Return the network with random values, and its preprocessing: uint8 [N, H, W, 3] to its input.

    Raises:
        InputError: see `load`.
    """
    only_own_preprocessing(config)
    settings, published_with = _settings(config), _trained_with(config)
    if settings.get("quick_gelu") and published_with and not published_with.get("quick_gelu"):
        raise InputError(
            f"extractor '{config.name}': {config.model} has QuickGELU, {config.pretrained} has not"
        )
    settings["quick_gelu"] = settings.get("quick_gelu", False) or published_with.get("quick_gelu", False)
    model = open_clip.model.CLIP(**settings)
    how = {key: published_with[key] for key in TRANSFORM if key in published_with}
    transform = image_transform_v2(PreprocessCfg(size=model.visual.image_size, **how), is_train=False)

    def prepare(batch: Images) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(image)) for image in batch])

    return model, prepare


def published_name(config: ExtractorConfig) -> str:
    """Return what the table of weights calls `model` with `pretrained`; open_clip knows their repository.

    Raises:
        InputError: `pretrained` is not given, or the table does not have it.
    """
    if config.pretrained is None:
        raise InputError(f"extractor '{config.name}': neither `source` nor `pretrained` says which weights")
    hub = _trained_with(config).get("hf_hub", "").strip("/")
    entries = [entry for entry in published().values() if hub and hub == entry.repository]
    if len(entries) != 1:
        raise InputError(
            f"extractor '{config.name}': sd2eval does not know where the weights {config.pretrained} of "
            f"{config.model} are; set its `source` to a local copy"
        )
    return entries[0].name


def towers(
    config: ExtractorConfig,
    model: Any,
    prepare: Prepare,
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


def _settings(config: ExtractorConfig) -> dict[str, Any]:
    """Return the arguments of open_clip's CLIP for an architecture."""
    if config.model is None:
        raise InputError(f"extractor '{config.name}': `model` names no OpenCLIP architecture")
    settings: dict[str, Any] | None = open_clip.get_model_config(config.model)
    if settings is None:
        raise InputError(
            f"extractor '{config.name}': cannot load its weights: no architecture {config.model} in open_clip"
        )
    if settings.get("custom_text") or any(key.startswith("hf_") for key in settings["text_cfg"]):
        # Their tokenizers and text towers come from repositories of their own, by a download of open_clip's.
        raise InputError(
            f"extractor '{config.name}': {config.model} has another text tower than CLIP's; not supported"
        )
    return settings


def _trained_with(config: ExtractorConfig) -> dict[str, Any]:
    """Return what open_clip knows of the weights; nothing for an architecture without published ones.

    Raises:
        InputError: `pretrained` is none of those that the architecture has.
    """
    tags = open_clip.list_pretrained_tags_by_model(str(config.model))
    if config.pretrained in tags:
        found: dict[str, Any] = open_clip.get_pretrained_cfg(config.model, config.pretrained)
        return found
    if tags or config.pretrained is not None:
        raise InputError(
            f"extractor '{config.name}': `pretrained` must say with which activation and normalisation the "
            f"weights of {config.model} were trained, got {config.pretrained}; allowed: "
            f"{', '.join(tags) or 'null, for an architecture without published weights'}"
        )
    return {}
