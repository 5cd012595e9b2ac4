"""Tiny CLIPs that open_clip knows by name, with published weights that it knows by tag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED

OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def architecture(folder: Path, name: str, width: int = 16, pixels: int = 32, **settings: object) -> None:
    """Add an architecture with embeddings of `width` numbers to those that open_clip knows."""
    vision = {"image_size": pixels, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"embed_dim": width, "vision_cfg": vision, "text_cfg": text} | settings))
    open_clip.add_model_config(file)


def publish(patch: pytest.MonkeyPatch, name: str, **tags: dict[str, Any]) -> None:
    """Let open_clip know published weights of an architecture, each with what belongs to it."""
    known = {
        tag: {"url": "", "hf_hub": "", "interpolation": "bicubic", "resize_mode": "shortest"} for tag in tags
    }
    patch.setitem(_PRETRAINED, name, {tag: known[tag] | tags[tag] for tag in tags})


def random_clip(name: str, seed: int = 0) -> Any:
    """Return open_clip's own class with random values that are large enough for its activation to matter."""
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**open_clip.get_model_config(name))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model
