"""Small networks, and LoRA files for them in every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

Names = Callable[[str, str], tuple[str, str, str]]
"""The part (`unet` or `text`) and a module to the names of its down, up and alpha tensors."""


def unet(linear: bool = True, text_width: int = 24) -> Any:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width, attention_head_dim=2, use_linear_projection=linear,
    ).eval().requires_grad_(False)  # fmt: skip


def text_model(layers: int = 23, width: int = 24) -> Any:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=50, hidden_size=width, intermediate_size=40, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=8, bos_token_id=48, eos_token_id=49,
    )  # fmt: skip
    return CLIPTextModel(config).eval().requires_grad_(False)


@dataclass
class Low:
    """A random update of one module."""

    part: str
    module: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    def delta(self) -> torch.Tensor:
        """What it adds to the weight, in float64."""
        up, down = self.up.double().flatten(1), self.down.double()
        return self.alpha / len(down) * torch.einsum("or,r...->o...", up, down)


def draw(part: str, model: Any, only: Callable[[str], bool] = lambda name: True) -> Iterator[Low]:
    """Draw an update for every linear and convolutional layer, of ranks 1 to 4 and several alphas."""
    generator = torch.Generator().manual_seed(2)
    layers = ((name, it) for name, it in model.named_modules() if isinstance(it, nn.Linear | nn.Conv2d))
    for index, (name, module) in enumerate((name, it) for name, it in layers if only(name)):
        rank = 1 + index % 4
        out, *rest = module.weight.shape
        down = torch.randn(rank, *rest, generator=generator) * 0.1
        up = torch.randn(out, rank, *[1] * (len(rest) - 1), generator=generator)
        yield Low(part, name, down, up, alpha=(1.0, 4.0, 0.5)[index % 3])


def kohya(part: str, module: str) -> tuple[str, str, str]:
    prefix = {"unet": "lora_unet_", "text": "lora_te_text_model_"}[part]
    stem = prefix + module.replace(".", "_")
    return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"


def peft(part: str, module: str) -> tuple[str, str, str]:
    stem = {"unet": "unet.", "text": "text_encoder."}[part] + module
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", f"{stem}.alpha"


def dotted(part: str, module: str) -> tuple[str, str, str]:
    stem, middle = f"unet.{module}", "lora"
    if part == "text":
        stem, middle = f"text_encoder.text_model.{module}", "lora_linear_layer"
    return f"{stem}.{middle}.down.weight", f"{stem}.{middle}.up.weight", f"{stem}.alpha"


def processors(part: str, module: str) -> tuple[str, str, str]:
    """Names of the attention processors' time, for attention layers only."""
    if part == "unet":
        module = module.removesuffix(".0")
        attention, _, layer = module.rpartition(".")
        stem = f"unet.{attention}.processor.{layer}"
    else:
        attention, _, layer = module.rpartition(".")
        stem = f"text_encoder.text_model.{attention}.to_{layer.removesuffix('_proj')}"
    return f"{stem}_lora.down.weight", f"{stem}_lora.up.weight", f"{stem}.alpha"


def bare(part: str, module: str) -> tuple[str, str, str]:
    """Names of the oldest files, which hold a UNet's update only."""
    down, up, alpha = processors(part, module)
    return down.removeprefix("unet."), up.removeprefix("unet."), alpha.removeprefix("unet.")


def attention_only(name: str) -> bool:
    return any(part in name for part in (".to_q", ".to_k", ".to_v", ".to_out.", ".self_attn."))


def write(
    path: Path, names: Names, updates: list[Low], alphas: bool = True, settings: dict[str, Any] | None = None
) -> Path:
    """Write updates, with their alphas as tensors if `alphas`, and with PEFT's settings."""
    tensors = {}
    for it in updates:
        down, up, alpha = names(it.part, it.module)
        tensors[down], tensors[up] = it.down, it.up
        if alphas:
            tensors[alpha] = torch.tensor(it.alpha)
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(settings)} if settings else None)
    return path


def snapshot(*models: Any) -> list[torch.Tensor]:
    return [tensor.clone() for model in models for tensor in model.state_dict().values()]
