"""A LoRA file added to the weights of a checkpoint: W + scale * alpha / rank * up @ down.

Three ways of naming the same tensors are read: kohya's (`lora_unet_..._to_q.lora_down.weight`), PEFT's as
diffusers writes it (`unet....to_q.lora_A.weight`), and diffusers' older ones
(`unet....processor.to_q_lora.down.weight`, `....to_q.lora.down.weight`,
`....q_proj.lora_linear_layer.down.weight`). kohya writes the dots of a module's name as underscores, so
modules are looked up by their names with underscores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sd2eval.errors import InputError
from sd2eval.transfer.digests import file_digest

KEPT_LAYERS = 23
"""Layers SD2 runs of the 24 in OpenCLIP ViT-H/14's text tower; a LoRA may adapt the last one, unheard."""

TENSOR = re.compile(
    r"(?P<module>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<role>down|up|A|B)(?:\.default)?\.weight|\.alpha)"
)
ROLES = {"down": "down", "A": "down", "up": "up", "B": "up", None: "alpha"}
PARTS = {"lora_unet_": "unet", "unet.": "unet", "lora_te_": "text", "text_encoder.": "text"}
"""What a tensor's name starts with, to the network it adapts; the oldest files have the UNet's bare names."""
XL = ("lora_te1_", "lora_te2_", "text_encoder_2.")
FOREIGN = {
    r"\.hada_": "LoHa",
    r"\.lokr_": "LoKr",
    r"\.(dora_scale|lora_magnitude_vector)": "DoRA",
    r"\.b?oft_": "OFT",
    r"\.lora_mid\.weight$": "LoCon in Tucker form",
    r"\.(diff|diff_b|w_norm|b_norm)$": "a difference of whole weights",
}
"""Tensors that are added in other ways, which would be wrong if read as a LoRA's."""
MADE_FOR = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
READS_TEXT = re.compile(r".*_attn2_to_[kv]|.*_self_attn_[qkv]_proj")
"""Modules whose input is as wide as the text encoder."""


@dataclass
class Adapter:
    """What a file adds to one module."""

    name: str
    """The module, as the file calls it, without the network's prefix."""
    part: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """`down` [rank, in, ...], `up` [out, rank, ...], and `alpha` [] if the file says one."""
    first: str = ""
    """One of its tensors, as the file calls it."""

    @property
    def key(self) -> str:
        """The module's name with underscores, as today's diffusers and transformers call it."""
        key = self.name.replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")
        if self.part == "unet":
            return re.sub(r"_to_out$", "_to_out_0", key)
        return re.sub(r"_to_(q|k|v|out)$", r"_\1_proj", key)


@torch.no_grad()
def merge_lora(path: Path, unet: Any, text_model: Any, scale: float = 1.0) -> str:
    """Add a LoRA to the weights of a UNet and a text encoder, in place; sums in float32.

    Args:
        path: a `.safetensors` file.
        unet: diffusers' UNet2DConditionModel, before its projections are fused.
        text_model: transformers' CLIPTextModel.
        scale: times everything the file adds; at 0 the weights stay as they are, to the bit.

    Returns:
        The file's SHA-256.

    Raises:
        InputError: the file is no plain LoRA, or any tensor in it has no place in this checkpoint; the
            weights are untouched then.
    """
    tensors, configs = _read(path)
    weights = {"unet": _adaptable(unet), "text": _adaptable(text_model)}
    adapters = _adapters(path, tensors)
    if text_model.config.num_hidden_layers == KEPT_LAYERS:
        unheard = f"encoder_layers_{KEPT_LAYERS}_"
        adapters = [it for it in adapters if not (it.part == "text" and it.key.startswith(unheard))]
    _check(path, adapters, weights)
    factors = [scale * _strength(path, it, configs[it.part]) for it in adapters]
    if scale:
        for adapter, factor in zip(adapters, factors, strict=True):
            _add(weights[adapter.part][adapter.key], adapter.tensors, factor)
    return file_digest(path)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a file's tensors and the PEFT settings in it, by network."""
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        raise InputError(f"{path}: a pickle can run code when it is read; take or make a .safetensors of it")
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            settings = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as a LoRA in safetensors ({reason})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: its lora_adapter_metadata is no JSON object")
    return tensors, _by_network(path, settings)


def _by_network(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Split PEFT's settings, whose keys start like the tensors' names."""
    configs: dict[str, Any] = {"unet": {}, "text": {}}
    for name, value in settings.items():
        prefix = next((prefix for prefix in PARTS if name.startswith(prefix)), "")
        setting = name.removeprefix(prefix)
        if setting in ("use_dora", "use_rslora") and value:
            raise InputError(f"{path}: not a plain LoRA ({name} is set); only plain LoRA can be added")
        configs[PARTS.get(prefix, "unet")][setting] = value
    return configs


def _adaptable(model: Any) -> dict[str, torch.Tensor]:
    """Return the weight of every linear and convolutional layer by its name with underscores."""
    weights = {}
    for name, module in model.named_modules():
        if name.endswith(("to_qkv", "to_kv")):
            raise ValueError("merge a LoRA before fuse_qkv_projections: fused weights would not change")
        if isinstance(module, nn.Linear | nn.Conv2d):
            weights[name.removeprefix("text_model.").replace(".", "_")] = module.weight
    return weights


def _adapters(path: Path, tensors: Mapping[str, torch.Tensor]) -> list[Adapter]:
    """Return the adapters of a file, one for each module it names.

    Raises:
        InputError: there are tensors of another kind, none at all, or not exactly one for each role.
    """
    found: dict[tuple[str, str], Adapter] = {}
    for name, tensor in tensors.items():
        _refuse_foreign(path, name)
        prefix = next((prefix for prefix in PARTS if name.startswith(prefix)), "")
        match = TENSOR.fullmatch(name.removeprefix(prefix))
        # What does not read as a LoRA's tensor is its own adapter, for which no module will be found.
        module, role = (match["module"], ROLES[match["role"]]) if match else (name, "unknown")
        new = Adapter(module, PARTS.get(prefix, "unet"), first=name)
        adapter = found.setdefault((new.part, new.key), new)
        if role in adapter.tensors:
            raise InputError(f"{path}: two tensors for the same weight ({adapter.first} and {name})")
        adapter.tensors[role] = tensor
    if not found:
        raise InputError(f"{path}: holds no tensors")
    return list(found.values())


def _refuse_foreign(path: Path, name: str) -> None:
    for pattern, kind in FOREIGN.items():
        if re.search(pattern, name):
            raise InputError(f"{path}: not a plain LoRA but {kind} ({name}); only plain LoRA can be added")
    if name.startswith(XL):
        raise InputError(f"{path}: made for Stable Diffusion XL ({name}), which has two text encoders")


def _check(path: Path, adapters: list[Adapter], weights: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Refuse a file unless every tensor has a place of its shape."""
    if not adapters:
        raise InputError(f"{path}: adapts nothing but the text encoder's last layer, which SD2 does not use")
    placed = [it for it in adapters if it.key in weights[it.part]]
    wrong = []
    for adapter in placed:
        missing = {"down", "up"} - adapter.tensors.keys()
        if missing:
            raise InputError(f"{path}: {adapter.first} has no {min(missing)} tensor beside it")
        if not _fits(weights[adapter.part][adapter.key].shape, adapter.tensors):
            wrong.append(adapter)
    if wrong:
        raise InputError(f"{path}: {_misfit(wrong, weights)}")
    lost = [it for it in adapters if it.key not in weights[it.part]]
    if lost:
        count = sum(len(it.tensors) for it in lost)
        raise InputError(f"{path}: {count} tensors find no place in this checkpoint (first: {lost[0].first})")
    for adapter in adapters:
        if not all(tensor.is_floating_point() for role, tensor in adapter.tensors.items() if role != "alpha"):
            raise InputError(f"{path}: {adapter.first} or a tensor beside it holds no floating point numbers")
        if not all(bool(tensor.float().isfinite().all()) for tensor in adapter.tensors.values()):
            raise InputError(f"{path}: {adapter.first} or a tensor beside it holds NaN or infinity")


def _fits(weight: torch.Size, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether up @ down has a weight's shape; a linear layer may be written as a 1x1 convolution."""
    down, up = _linear(tensors["down"].shape), _linear(tensors["up"].shape)
    alpha = tensors.get("alpha")
    return (
        len(up) == 2
        and up[0] == weight[0]
        and 0 < up[1] == down[0]
        and down[1:] == _linear(weight)[1:]
        and (alpha is None or alpha.numel() == 1)
    )


def _linear(shape: torch.Size) -> tuple[int, ...]:
    """Return a shape without the two ones of a 1x1 convolution."""
    return tuple(shape[:2] if shape[2:] == (1, 1) else shape)


def _misfit(wrong: list[Adapter], weights: Mapping[str, Mapping[str, torch.Tensor]]) -> str:
    """Return what the first misfit tells: another text encoder if that is what it is."""
    for adapter in wrong:
        made, has = adapter.tensors["down"].shape[1:2], weights[adapter.part][adapter.key].shape[1:2]
        if READS_TEXT.fullmatch(adapter.key) and made != has and made:
            model = f" ({MADE_FOR[made[0]]})" if made[0] in MADE_FOR else ""
            return f"made for text width {made[0]}{model}, this checkpoint has {has[0]}"
    shapes = {role: tuple(tensor.shape) for role, tensor in wrong[0].tensors.items()}
    shape = tuple(weights[wrong[0].part][wrong[0].key].shape)
    return f"{len(wrong)} modules have another shape here (first: {wrong[0].first}: {shapes} for {shape})"


def _strength(path: Path, adapter: Adapter, config: Mapping[str, Any]) -> float:
    """Return alpha / rank; alpha is a tensor of the file, or in PEFT's settings, or else the rank."""
    rank = adapter.tensors["down"].shape[0]
    patterns = config.get("alpha_pattern", {})
    try:
        if not isinstance(patterns, dict):
            raise TypeError("alpha_pattern is no JSON object")
        named = (patterns[it] for it in patterns if re.fullmatch(rf"(.*\.)?({it})", adapter.name))
        alpha = adapter.tensors.get("alpha", next(named, config.get("lora_alpha", rank)))
        return float(alpha) / rank
    except (TypeError, ValueError, re.error) as error:
        raise InputError(
            f"{path}: the alpha in its lora_adapter_metadata cannot be read ({error})"
        ) from error


def _add(weight: torch.Tensor, tensors: Mapping[str, torch.Tensor], factor: float) -> None:
    up, down = (tensors[role].to(weight.device, torch.float32).flatten(1) for role in ("up", "down"))
    weight.copy_(weight.float() + factor * (up @ down).reshape(weight.shape))
