"""MiDaS dpt_hybrid, as `512-depth-ema` carries it, under the names of transformers' DPT hybrid.

Derived from the original model code (`ldm/modules/midas/midas/{dpt_depth,vit,blocks}.py`), which builds on
timm's `vit_base_r50_s16_384`. Both networks compute the same; only the names differ, and the original stacks
query, key and value of a block in one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from transformers import DPTConfig, DPTForDepthEstimation

from sd2eval.errors import InputError

UNUSED = frozenset({"pretrained.model.head.weight", "pretrained.model.head.bias"})
"""MiDaS' tensors that no depth depends on: the classifier of timm's network."""

Place = tuple[str, int | None]
"""A tensor's name in MiDaS, and which third of its rows (query, key, value); None for all of it."""

VIT = "pretrained.model."
BACKBONE = f"{VIT}patch_embed.backbone."
BIT = "dpt.embeddings.backbone.bit."

PREFIXES = {
    "dpt.embeddings.cls_token": f"{VIT}cls_token",
    "dpt.embeddings.position_embeddings": f"{VIT}pos_embed",
    "dpt.embeddings.projection.": f"{VIT}patch_embed.proj.",
    f"{BIT}embedder.convolution.": f"{BACKBONE}stem.conv.",
    f"{BIT}embedder.norm.": f"{BACKBONE}stem.norm.",
    "dpt.layernorm.": f"{VIT}norm.",
    "head.head.": "scratch.output_conv.",
}
BLOCK = {
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
}
THIRDS = {"query": 0, "key": 1, "value": 2}
FUSION = {"projection.": "out_conv."} | {
    f"residual_layer{unit}.convolution{conv}.": f"resConfUnit{unit}.conv{conv}."
    for unit in (1, 2)
    for conv in (1, 2)
}


def depth_names(config: DPTConfig) -> dict[str, Place]:
    """Return, for every tensor of a DPT hybrid, where MiDaS keeps it (below `depth_model.model.`)."""
    return _places(_shapes(config), config)


def depth_state(state: Mapping[str, torch.Tensor], config: DPTConfig) -> dict[str, torch.Tensor]:
    """Return MiDaS' tensors as the state dict of `DPTForDepthEstimation(config)`; all are views.

    Args:
        state: MiDaS' tensors by name, without `depth_model.model.`.
        config: of the DPT hybrid.

    Raises:
        InputError: a tensor is missing, has another shape, or has no place in MiDaS.
    """
    shapes = _shapes(config)
    places = _places(shapes, config)
    used = {name for name, _ in places.values()}
    _refuse("are missing", used - state.keys())
    _refuse("are not MiDaS dpt_hybrid's", state.keys() - used - UNUSED)
    moved = {}
    for ours, (name, third) in places.items():
        rows, *rest = shapes[ours]
        want = (rows if third is None else 3 * rows, *rest)
        tensor = state[name]
        if tensor.shape != want:
            raise InputError(f"depth estimator: {name} has shape {tuple(tensor.shape)}, expected {want}")
        moved[ours] = tensor if third is None else tensor.tensor_split(3)[third]
    return moved


def _refuse(what: str, names: set[str]) -> None:
    if names:
        raise InputError(f"depth estimator: {len(names)} tensors {what} (first: {min(names)})")


def _shapes(config: DPTConfig) -> dict[str, torch.Size]:
    """Return the shape of every tensor of the network, which is not allocated."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in DPTForDepthEstimation(config).state_dict().items()}


def _places(names: Mapping[str, object], config: DPTConfig) -> dict[str, Place]:
    prefixes = PREFIXES | dict(_backbone(config)) | dict(_transformer(config)) | dict(_neck(config))
    places = {}
    for name in names:
        ours = next(prefix for prefix in prefixes if name.startswith(prefix))
        third = THIRDS.get(name.split(".")[-2])
        places[name] = prefixes[ours] + name.removeprefix(ours), third
    return places


def _backbone(config: DPTConfig) -> Iterator[tuple[str, str]]:
    """Yield the prefixes of the residual network's blocks."""
    for stage, depth in enumerate(config.backbone_config.depths):
        for block in range(depth):
            yield f"{BIT}encoder.stages.{stage}.layers.{block}.", f"{BACKBONE}stages.{stage}.blocks.{block}."


def _transformer(config: DPTConfig) -> Iterator[tuple[str, str]]:
    """Yield the prefixes of the transformer's blocks."""
    for index in range(config.num_hidden_layers):
        ours, theirs = f"dpt.encoder.layer.{index}.", f"{VIT}blocks.{index}."
        yield from ((ours + new, theirs + old) for new, old in BLOCK.items())
        yield from ((f"{ours}attention.attention.{part}.", f"{theirs}attn.qkv.") for part in THIRDS)


def _neck(config: DPTConfig) -> Iterator[tuple[str, str]]:
    """Yield the prefixes between backbone and head; MiDaS counts from 1, its fusion from the finest stage."""
    stages = len(config.neck_hidden_sizes)
    for stage in range(stages):
        post = f"pretrained.act_postprocess{stage + 1}."
        yield f"neck.reassemble_stage.readout_projects.{stage}.0.", f"{post}0.project.0."
        yield f"neck.reassemble_stage.layers.{stage}.projection.", f"{post}3."
        yield f"neck.reassemble_stage.layers.{stage}.resize.", f"{post}4."
        yield f"neck.convs.{stage}.", f"scratch.layer{stage + 1}_rn."
        ours, theirs = f"neck.fusion_stage.layers.{stage}.", f"scratch.refinenet{stages - stage}."
        yield from ((ours + new, theirs + old) for new, old in FUSION.items())
