"""Files in the published layout, of the published shapes but few channels, for the tests of the loader."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.published_layout import published_state, write
from sd2eval import checkpoints
from sd2eval.checkpoints.architecture import Architecture, load_architecture
from sd2eval.config import CheckpointConfig, from_overrides

CPU = torch.device("cpu")
NARROW_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}


RELATIVES = {
    "sd2-base": "512-base-ema",
    "sd2-inpainting": "512-inpainting-ema",
    "sd2-x4": "x4-upscaling-ema",
    "sd1-5": "v1-5-pruned-emaonly",
}


def narrow(name: str) -> Architecture:
    """Return a bundled architecture with the same blocks and input channels, but few channels."""
    real = load_architecture(name)
    unet = real.unet | {"block_out_channels": [64, 64, 128, 128], "cross_attention_dim": 64}
    unet |= {"layers_per_block": 1, "attention_head_dim": 4}
    vae = real.vae | {"block_out_channels": [32] * len(real.vae["block_out_channels"]), "layers_per_block": 1}
    return Architecture(unet, vae, real.text_encoder | NARROW_TEXT)


def make(root: Path) -> Path:
    """Write architectures as folders of configs, and one file of random weights for each."""
    for name in RELATIVES:
        architecture = narrow(name)
        (root / name).mkdir()
        for part in ("unet", "vae", "text_encoder"):
            (root / name / f"{part}.json").write_text(json.dumps(getattr(architecture, part)))
        write(published_state(architecture), root / f"{name}.safetensors")
    return root


def definition(folder: Path, name: str, file: Path | None = None, **changes: Any) -> CheckpointConfig:
    """Return a definition of the user's own that reads a file as a narrow architecture."""
    overrides = ("experiment=model_card", "data.root=.", f"checkpoint={RELATIVES[name]}")
    real = from_overrides(*overrides)[1][0]
    own = {
        "name": "mine",
        "architecture": str(folder / name),
        "source": str(file or folder / f"{name}.safetensors"),
    }
    return dataclasses.replace(real, **(own | changes))  # type: ignore[arg-type]


def load(wanted: CheckpointConfig) -> checkpoints.Checkpoint:
    return checkpoints.load(wanted, CPU, torch.float32)
