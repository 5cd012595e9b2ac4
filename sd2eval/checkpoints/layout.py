"""The published (CompVis) layout: where a single file keeps each tensor of a model.

Each function returns, for every tensor of a diffusers or transformers model, its name in the published file
and, where the file stacks query, key and value in one tensor, which third it is. Shapes agree up to trailing
ones: the original wrote some linear layers as 1x1 convolutions. After the original model code of Stable
Diffusion (`openaimodel.py`, `diffusionmodules/model.py`) and OpenCLIP (`transformer.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

UNET = "model.diffusion_model."
VAE = "first_stage_model."
OPEN_CLIP_TEXT = "cond_stage_model.model."
CLIP_TEXT = "cond_stage_model.transformer.text_model."
DEPTH = "depth_model.model."
WHOLE = (UNET, *(f"{VAE}{part}" for part in ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")))
"""Networks of which a loader uses every tensor of the file."""


class Piece(NamedTuple):
    """Where a tensor lies in a published file."""

    name: str
    third: int | None = None
    """Which third of its rows; None for all of it."""

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return this part of the file's tensor, as a view."""
        return tensor if self.third is None else tensor.chunk(3)[self.third]


Names = dict[str, Piece]
"""A model's tensor names to their places."""

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
TEXT_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
TEXT_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def unet_names(tensors: Mapping[str, object], levels: int, layers: int) -> Names:
    """Return the places of a UNet2DConditionModel's tensors.

    Args:
        tensors: its state dict, or anything with the same keys.
        levels: number of resolutions (`block_out_channels`).
        layers: residual blocks per resolution (`layers_per_block`).
    """
    modules = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "class_embedding": "label_emb",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    } | dict(_unet_blocks(tensors, levels, layers))
    return {name: Piece(UNET + _moved(name, modules, UNET_RESNET)) for name in tensors}


def _unet_blocks(tensors: Mapping[str, object], levels: int, layers: int) -> Iterator[tuple[str, str]]:
    """Yield module names of the two halves; the original counts their blocks through all resolutions."""
    block = 1
    for level in range(levels):
        for layer in range(layers):
            yield f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{block}.0"
            yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{block}.1"
            block += 1
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{block}.0.op"
        block += 1
    block = 0
    for level in range(levels):
        attends = f"up_blocks.{level}.attentions.0.norm.weight" in tensors
        for layer in range(layers + 1):
            yield f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{block}.0"
            yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{block}.1"
            block += 1
        # The upsampler is the last module of the resolution's last block.
        yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{block - 1}.{1 + attends}.conv"


def vae_names(tensors: Mapping[str, object], levels: int, layers: int) -> Names:
    """Return the places of an AutoencoderKL's tensors; arguments as of `unet_names`."""
    modules = dict(_vae_blocks(levels, layers))
    inner = VAE_ATTENTION | {"conv_shortcut": "nin_shortcut"}
    return {name: Piece(VAE + _moved(name, modules, inner)) for name in tensors}


def _vae_blocks(levels: int, layers: int) -> Iterator[tuple[str, str]]:
    for half in ("encoder", "decoder"):
        yield f"{half}.mid_block.resnets.0", f"{half}.mid.block_1"
        yield f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
        yield f"{half}.mid_block.resnets.1", f"{half}.mid.block_2"
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
    for level in range(levels):
        yield f"encoder.down_blocks.{level}.downsamplers.0", f"encoder.down.{level}.downsample"
        mirrored = levels - 1 - level  # the original counts the decoder's resolutions from the largest
        yield f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.up.{mirrored}.upsample"
        for layer in range(layers + 1):
            yield f"encoder.down_blocks.{level}.resnets.{layer}", f"encoder.down.{level}.block.{layer}"
            yield f"decoder.up_blocks.{level}.resnets.{layer}", f"decoder.up.{mirrored}.block.{layer}"


def _moved(name: str, modules: Mapping[str, str], inner: Mapping[str, str]) -> str:
    """Return a tensor's name with its module, and a part directly inside that module, renamed."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in modules:
            rest = ".".join(parts[length:-1])
            return ".".join(filter(None, (modules[prefix], inner.get(rest, rest), parts[-1])))
    return name


def open_clip_names(layers: int, prefix: str = OPEN_CLIP_TEXT) -> Names:
    """Return the places of the tensors of a CLIPTextModel with an OpenCLIP text tower's first layers."""
    names = {ours: Piece(prefix + theirs) for ours, theirs in TEXT_ENDS.items()}
    for index in range(layers):
        ours, theirs = f"encoder.layers.{index}", f"{prefix}transformer.resblocks.{index}"
        for kind in ("weight", "bias"):
            for new, old in TEXT_LAYER.items():
                names[f"{ours}.{new}.{kind}"] = Piece(f"{theirs}.{old}.{kind}")
            for third, part in enumerate("qkv"):
                names[f"{ours}.self_attn.{part}_proj.{kind}"] = Piece(f"{theirs}.attn.in_proj_{kind}", third)
    return names


def clip_names(tensors: Mapping[str, object]) -> Names:
    """Return the places of a CLIPTextModel's tensors in a v1 file, which keeps transformers' names."""
    return {name: Piece(CLIP_TEXT + name) for name in tensors}
