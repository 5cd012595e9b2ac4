"""A checkpoint's networks from its files, whichever layout each part comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, DPTForDepthEstimation

from sd2eval.checkpoints import single_file
from sd2eval.checkpoints.architecture import Architecture, load_architecture
from sd2eval.checkpoints.lora import merge_lora
from sd2eval.checkpoints.sources import Sources
from sd2eval.checkpoints.text import OPEN_CLIP_FILE, TextEncoder, load_open_clip, text_encoder
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
    parts = {"unet": unet, "vae": vae, "text_encoder": text, "depth_estimator": depth}
    _check_finite(parts, definition)
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
    model = load_whole(cls, folder, torch_dtype=dtype, low_cpu_mem_usage=False)
    model = model.to(dtype)  # a file may mix precisions, which the library leaves as they are
    return model.to(memory_format=torch.channels_last)  # faster on CPU and GPU


def load_text_model(folder: Path, dtype: torch.dtype) -> Any:
    """Load a text encoder folder, in transformers layout or as OpenCLIP's state dict with its text config.

    Raises:
        InputError: it is neither, or a tensor is missing.
    """
    if (folder / OPEN_CLIP_FILE).exists():
        with _one_line(folder):
            return load_open_clip(folder).to(dtype)
    return load_whole(CLIPTextModel, folder, dtype=dtype)


def _depth_estimator(folder: Path) -> Any:
    return load_whole(DPTForDepthEstimation, folder, dtype=torch.float32)


def load_whole(cls: Any, folder: Path, **settings: Any) -> Any:
    """Load a network whose every tensor is in the folder, and no other: a missing one would be random."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: holds no config.json, so it is no {cls.__name__}")
    with _one_line(folder):
        model, found = cls.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **settings
        )
    for key, what in {"missing": "are missing", "unexpected": "find no place"}.items():
        names = sorted(found[f"{key}_keys"])
        if names:
            raise InputError(f"{folder}: {len(names)} tensors {what} (first: {names[0]})")
    if found["mismatched_keys"]:
        raise InputError(f"{folder}: tensors of another shape than its config.json says")
    return model.eval().requires_grad_(False)


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """Whatever a damaged folder makes the libraries raise becomes one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:250]
        raise InputError(f"{folder}: cannot be loaded ({reason})") from error


def _check_finite(networks: dict[str, Any], definition: CheckpointConfig) -> None:
    """NaN or infinity in the weights would be found only after everything was sampled."""
    for part, network in networks.items():
        for name, parameter in network.named_parameters() if network is not None else ():
            if not bool(parameter.isfinite().all()):
                raise InputError(
                    f"checkpoint '{definition.name}': {name} of its {part} holds NaN or infinity"
                    f"{', perhaps from the LoRA' if definition.lora else ''}"
                )
