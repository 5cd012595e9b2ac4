"""Checkpoints in one file of the published (CompVis) layout, read with bundled configs: no guessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, DPTConfig, DPTForDepthEstimation

from sd2eval.checkpoints import layout, midas
from sd2eval.checkpoints.architecture import Architecture
from sd2eval.checkpoints.layout import Names
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError

KINDS = {4: "text-to-image", 5: "depth", 7: "upscaling", 9: "inpainting"}
"""What a UNet with so many input channels was made for."""
LATENT_CHANNELS = 4
EXTRA_CHANNELS = {"text": 0, "depth": 1, "inpainting": 5, "upscaling": 3}
"""UNet input channels behind the latent's, by `checkpoint.conditioning`."""
IGNORED = ("architectures", "dtype", "model_type", "torch_dtype", "transformers_version", "bos_token_id",
           "eos_token_id", "pad_token_id", "projection_dim")  # fmt: skip
"""Keys of saved configs that shape no network here."""
ASK_ARCHITECTURE = "is checkpoint.architecture the one it was trained with?"


@dataclass(frozen=True)
class Contents:
    """What a published file holds, read off its tensors' names and shapes."""

    in_channels: int
    context: int
    """Width of the text features its UNet attends to."""
    text: str | None
    """`open_clip`, `clip`, or None where the file has no text encoder."""

    def __str__(self) -> str:
        """Describe it in a phrase."""
        family = {1024: "a Stable Diffusion 2", 768: "a Stable Diffusion 1"}.get(self.context, "an unknown")
        kind = KINDS.get(self.in_channels, "diffusion")
        return f"{family} {kind} checkpoint ({self.in_channels} input channels, text width {self.context})"


def contents(weights: WeightsFile) -> Contents:
    """Return what a file holds.

    Raises:
        InputError: it is not in the published layout.
    """
    first = weights.shapes.get(layout.UNET + "input_blocks.0.0.weight", ())
    attention = next(
        (
            shape
            for name, shape in weights.shapes.items()
            if name.startswith(layout.UNET) and name.endswith("attn2.to_k.weight")
        ),
        (),
    )
    if len(first) != 4 or len(attention) != 2:
        averaged = any(name.startswith("model_ema.") for name in weights.shapes)
        hint = "; it holds model_ema.* only, which the original scripts do not read" if averaged else ""
        raise InputError(
            f"{weights.path}: is no checkpoint in the published layout (no {layout.UNET}* tensors){hint}; "
            "of a folder in diffusers layout give the folder itself"
        )
    text = None
    if any(name.startswith(layout.OPEN_CLIP_TEXT) for name in weights.shapes):
        text = "open_clip"
    elif any(name.startswith(layout.CLIP_TEXT.split(".")[0] + ".transformer.") for name in weights.shapes):
        text = "clip"
    return Contents(first[1], attention[1], text)


def empty(cls: Any, config: dict[str, Any], part: str) -> Any:
    """Return a network without weights, on the meta device.

    Raises:
        InputError: the config describes no such network, or has a key that it does not know.
    """
    transformers = {CLIPTextModel: CLIPTextConfig, DPTForDepthEstimation: DPTConfig}.get(cls)
    known = transformers().to_dict().keys() if transformers else signature(cls.__init__).parameters.keys()
    foreign = [key for key in config if key not in known and key not in IGNORED and key[0] != "_"]
    if foreign:
        raise InputError(f"checkpoint.architecture: {part}.json has a key '{foreign[0]}' that is unknown")
    try:
        with torch.device("meta"):
            return cls(transformers(**config)) if transformers else cls.from_config(config)
    except Exception as error:  # whatever the libraries raise on values that make no network
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"checkpoint.architecture: {part}.json describes no {cls.__name__} ({reason})"
        ) from error


def check_contents(weights: WeightsFile, definition: CheckpointConfig) -> None:
    """Refuse a file that is not what the definition says, before anything is built from it.

    Raises:
        InputError: says what the file is and what was expected.
    """
    if definition.architecture is None:
        raise InputError(
            f"checkpoint.architecture: '{definition.name}' comes from a single file; start from its "
            "published relative: checkpoint=512-base-ema checkpoint.source=FILE checkpoint.name=mine"
        )
    found = contents(weights)
    needed = LATENT_CHANNELS + EXTRA_CHANNELS[definition.conditioning]
    if found.in_channels != needed:
        raise InputError(
            f"{weights.path}: is {found}, but checkpoint '{definition.name}' has "
            f"conditioning={definition.conditioning}, which needs {needed} input channels"
        )
    if "text_encoder" not in definition.components and found.text != definition.text:
        holds = {"open_clip": "OpenCLIP's (SD2)", "clip": "CLIP's (v1)", None: "none"}
        raise InputError(
            f"{weights.path}: is {found}; its text encoder is {holds[found.text]}, but checkpoint "
            f"'{definition.name}' has checkpoint.text={definition.text}"
        )


def load_unet(weights: WeightsFile, architecture: Architecture, dtype: torch.dtype) -> Any:
    """Return the file's UNet, in `dtype`."""
    unet = empty(UNet2DConditionModel, architecture.unet, "unet")
    config = unet.config
    names = layout.unet_names(unet.state_dict(), len(config.block_out_channels), config.layers_per_block)
    return _assign(unet, names, weights, dtype)


def load_vae(weights: WeightsFile, architecture: Architecture, dtype: torch.dtype) -> Any:
    """Return the file's autoencoder, in `dtype`."""
    vae = empty(AutoencoderKL, architecture.vae, "vae")
    config = vae.config
    names = layout.vae_names(vae.state_dict(), len(config.block_out_channels), config.layers_per_block)
    return _assign(vae, names, weights, dtype)


def load_text_model(weights: WeightsFile, architecture: Architecture, kind: str, dtype: torch.dtype) -> Any:
    """Return the file's text encoder (`kind` as in `checkpoint.text`), in `dtype`."""
    model = empty(CLIPTextModel, architecture.text_encoder, "text_encoder")
    config, expected = model.config, model.state_dict()
    if kind == "open_clip":
        names = layout.open_clip_names(config.num_hidden_layers)
        _check_tower(weights, config.num_hidden_layers + 1)
    else:
        names = layout.clip_names(expected)
    return _transformers(CLIPTextModel, config, _read(expected, names, weights, dtype), dtype)


def _check_tower(weights: WeightsFile, layers: int) -> None:
    """The penultimate layer is the right one only if the last is the one left out."""
    block = f"{layout.OPEN_CLIP_TEXT}transformer.resblocks."
    found = {name.removeprefix(block).split(".")[0] for name in weights.shapes if name.startswith(block)}
    if len(found) not in (layers, layers - 1):  # some tools drop the unused last layer
        raise InputError(f"{weights.path}: its text encoder has {len(found)} layers, expected {layers}")


def load_depth_estimator(weights: WeightsFile, architecture: Architecture) -> Any:
    """Return the file's MiDaS as transformers' DPT hybrid, float32."""
    config = empty(DPTForDepthEstimation, architecture.depth_estimator or {}, "depth_estimator").config
    names = [name for name in weights.shapes if name.startswith(layout.DEPTH)]
    if not names:
        raise InputError(
            f"{weights.path}: holds no depth estimator; name one: "
            "+checkpoint.components.depth_estimator=FOLDER (transformers' DPT hybrid)"
        )
    state = {name.removeprefix(layout.DEPTH): tensor.float().clone() for name, tensor in weights.read(names)}
    return _transformers(DPTForDepthEstimation, config, midas.depth_state(state, config), torch.float32)


def _transformers(cls: Any, config: Any, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """Build a transformers model around tensors; unlike a model on the meta device it has its buffers."""
    return (
        cls.from_pretrained(None, config=config, state_dict=state, dtype=dtype).eval().requires_grad_(False)
    )


def _assign(model: Any, names: Names, weights: WeightsFile, dtype: torch.dtype) -> Any:
    model.load_state_dict(_read(model.state_dict(), names, weights, dtype), strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _read(
    expected: Mapping[str, torch.Tensor], names: Names, weights: WeightsFile, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return the model's tensors from the file, in its shapes and `dtype`, images channels last."""
    _check_names(names, weights)
    _check_shapes(expected, names, weights)
    users: dict[str, list[str]] = {}
    for ours, piece in names.items():
        users.setdefault(piece.name, []).append(ours)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in weights.read(users):
        for ours in users[name]:
            part = names[ours].of(tensor).reshape(expected[ours].shape)
            order = (
                torch.channels_last if part.ndim == 4 else torch.contiguous_format
            )  # faster on CPU and GPU
            state[ours] = part.to(dtype, copy=True, memory_format=order)
    return state


def _check_names(names: Names, weights: WeightsFile) -> None:
    used = {piece.name for piece in names.values()}
    missing = sorted(used - weights.shapes.keys())
    if missing:
        raise InputError(
            f"{weights.path}: {len(missing)} tensors are missing (first: {missing[0]}); {ASK_ARCHITECTURE}"
        )
    # The text encoder's last layer and a training's leftovers are known not to be used.
    parts = {part for part in layout.WHOLE if any(name.startswith(part) for name in used)}
    unused = sorted(name for name in weights.shapes if name.startswith(tuple(parts)) and name not in used)
    if unused:
        raise InputError(
            f"{weights.path}: {len(unused)} tensors find no place (first: {unused[0]}); {ASK_ARCHITECTURE}"
        )


def _check_shapes(expected: Mapping[str, torch.Tensor], names: Names, weights: WeightsFile) -> None:
    for ours, (theirs, third) in names.items():
        shape, want = weights.shapes[theirs], tuple(expected[ours].shape)
        stacked = want if third is None else (3 * want[0], *want[1:])
        if _squeezed(shape) != _squeezed(stacked):
            raise InputError(
                f"{weights.path}: {theirs} has shape {_shown(shape)}, expected {_shown(want)}"
                f"{'' if third is None else ' three times'}; {ASK_ARCHITECTURE}"
            )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without trailing ones: the original wrote some linear layers as 1x1 convolutions."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
