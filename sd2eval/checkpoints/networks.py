"""A checkpoint's networks from its files, whichever layout each part comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import DPTForDepthEstimation

from sd2eval.checkpoints import single_file
from sd2eval.checkpoints.architecture import Architecture, load_architecture
from sd2eval.checkpoints.lora import merge_lora
from sd2eval.checkpoints.sources import Sources
from sd2eval.checkpoints.text import TextEncoder, load_text_model, text_encoder
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError

Loader = Callable[[], Any]
"""Loads one network."""


@dataclass(frozen=True)
class Networks:
    """What a checkpoint consists of, on the CPU."""

    unet: Any
    vae: Any
    text_encoder: TextEncoder
    depth_estimator: Any
    """None unless the checkpoint is conditioned on depth."""


def load_networks(
    definition: CheckpointConfig,
    sources: Sources,
    dtype: torch.dtype,
    architecture: Architecture | None = None,
) -> Networks:
    """Load the networks of a checkpoint.

    Args:
        definition: what they must be.
        sources: where they are.
        dtype: of UNet and text encoder; autoencoder and depth estimator are float32.
        architecture: of a single file; None for the one that the definition names.

    Raises:
        InputError: a file is damaged, or is not what the definition says.
    """
    lora = sources.others.get("lora")
    loaded = torch.float32 if lora else dtype  # a LoRA is added before anything is rounded
    load = _in_folders(sources.folders, loaded)
    if sources.file:
        load = _in_file(definition, sources.file, loaded, architecture) | load
    unet, vae, text = load["unet"](), load["vae"](), load["text_encoder"]()
    depth = load["depth_estimator"]() if "depth_estimator" in load else None
    if lora:
        merge_lora(lora, unet, text, definition.lora_scale)
        unet.to(dtype)
        text.to(dtype)
    return Networks(unet, vae, text_encoder(text, sources.folders.get("tokenizer"), definition.text), depth)


def _in_file(
    definition: CheckpointConfig, file: Path, dtype: torch.dtype, architecture: Architecture | None
) -> dict[str, Loader]:
    weights = WeightsFile(file)
    single_file.check_contents(weights, definition)
    architecture = architecture or load_architecture(definition.architecture or "")
    loaders: dict[str, Loader] = {
        "unet": partial(single_file.load_unet, weights, architecture, dtype),
        "vae": partial(single_file.load_vae, weights, architecture, torch.float32),
        "text_encoder": partial(single_file.load_text_model, weights, architecture, definition.text, dtype),
    }
    if definition.conditioning == "depth" and architecture.depth_estimator is not None:
        loaders["depth_estimator"] = partial(single_file.load_depth_estimator, weights, architecture)
    return loaders


def _in_folders(folders: dict[str, Path], dtype: torch.dtype) -> dict[str, Loader]:
    kinds: dict[str, Callable[[Path], Any]] = {
        "unet": partial(_diffusers, UNet2DConditionModel, dtype),
        "vae": partial(_diffusers, AutoencoderKL, torch.float32),
        "text_encoder": partial(load_text_model, dtype=dtype),
        "depth_estimator": _depth_estimator,
    }
    return {name: partial(kinds[name], folder) for name, folder in folders.items() if name in kinds}


def _diffusers(cls: Any, dtype: torch.dtype, folder: Path) -> Any:
    try:
        model = cls.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: cannot load {cls.__name__}: {reason}") from error
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # faster on CPU and GPU


def _depth_estimator(folder: Path) -> Any:
    model = DPTForDepthEstimation.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return model.float().eval().requires_grad_(False)
