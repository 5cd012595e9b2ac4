"""Files in the published layout with random weights, to try the loader on where the real ones are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, DPTConfig, DPTForDepthEstimation

from sd2eval.checkpoints import layout, midas
from sd2eval.checkpoints.architecture import Architecture
from sd2eval.checkpoints.layout import Names, Piece

State = dict[str, torch.Tensor]


def published_state(architecture: Architecture, seed: int = 0) -> State:
    """Return random float32 tensors under the published names, as the architecture needs them."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for shapes, names in _parts(architecture):
        for name, shape in _stacked(shapes, names).items():
            scale = 1.0 if len(shape) == 1 else 0.5 * shape[1:].numel() ** -0.5
            state[name] = torch.randn(shape, generator=generator) * 0.1 * scale
            if len(shape) == 1 and name.endswith("weight"):
                state[name] += 1.0  # norms
    return state


def _parts(architecture: Architecture) -> Iterator[tuple[Mapping[str, torch.Tensor], Names]]:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(architecture.unet)
        vae = AutoencoderKL.from_config(architecture.vae)
        config = CLIPTextConfig(**architecture.text_encoder)
        v1 = config.hidden_act == "quick_gelu"
        if not v1:
            config.num_hidden_layers += 1  # published with the last layer, which is not used
        text = CLIPTextModel(config).state_dict()
    levels, layers = len(unet.config.block_out_channels), unet.config.layers_per_block
    yield unet.state_dict(), layout.unet_names(unet.state_dict(), levels, layers)
    levels, layers = len(vae.config.block_out_channels), vae.config.layers_per_block
    yield vae.state_dict(), layout.vae_names(vae.state_dict(), levels, layers)
    yield text, layout.clip_names(text) if v1 else layout.open_clip_names(config.num_hidden_layers)
    if architecture.depth_estimator is not None:
        estimator = DPTConfig(**architecture.depth_estimator)
        with torch.device("meta"):
            shapes = DPTForDepthEstimation(estimator).state_dict()
        places = midas.depth_names(estimator)
        yield shapes, {ours: Piece(layout.DEPTH + name, third) for ours, (name, third) in places.items()}


def _stacked(shapes: Mapping[str, torch.Tensor], names: Names) -> dict[str, torch.Size]:
    """Return the shapes in the file: query, key and value stacked, where the file has them so."""
    found: dict[str, torch.Size] = {}
    for ours, piece in names.items():
        shape = shapes[ours].shape
        found[piece.name] = shape if piece.third is None else torch.Size((3 * shape[0], *shape[1:]))
    return found


def write(state: State, file: Path) -> None:
    """Write `.safetensors`, or a `.ckpt` like the published ones."""
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "global_step": 875000}, file)
