"""The published heads' files with random numbers, each beside a tiny tower of its embedding's width."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from sd2eval.config import ExtractorConfig
from sd2eval.extractors import load_extractor
from sd2eval.weights.published import published
from tests.extractors.captioned import CPU
from tests.extractors.tiny_clips import OPENAI, architecture, publish, random_clip

State = dict[str, Tensor]
L14, H14 = "timm/vit_large_patch14_clip_224.openai/", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K/"


def _layers(places: tuple[int, ...], widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (before, after) in zip(places, pairwise(widths), strict=True):
        shapes |= {f"layers.{place}.weight": (after, before), f"layers.{place}.bias": (after,)}
    return shapes


# Names and shapes in the published files, from their authors' own classes.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "aesthetic_v1": {"weight": (1, 768), "bias": (1,)},
    "aesthetic_v2": _layers((0, 2, 4, 6, 7), (768, 1024, 128, 64, 16, 1)),
    "nsfw_l_14": {"norm.mean": (768,), "norm.variance": (768,)}
    | {"linear_1.weight": (64, 768), "linear_1.bias": (64,)}
    | {"linear_2.weight": (512, 64), "linear_2.bias": (512,)}
    | {"linear_3.weight": (256, 512), "linear_3.bias": (256,)}
    | {"linear_4.weight": (1, 256), "linear_4.bias": (1,)},
    "nsfw_h_14": _layers((0, 3, 6, 9, 12, 15, 16), (1024, 1024, 2048, 1024, 256, 128, 16, 1)),
}
LAST = {
    "aesthetic_v1": "bias",
    "aesthetic_v2": "layers.7.bias",
    "nsfw_l_14": "linear_4.bias",
    "nsfw_h_14": "layers.16.bias",
}


def state_of(name: str, spread: float = 1.0) -> State:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in SHAPES[name].items():
        values = torch.randn(shape, generator=generator) * spread
        state[key] = values / shape[-1] ** 0.5 if len(shape) == 2 else values
    if "norm.variance" in state:
        state["norm.variance"] = state["norm.variance"].square() + 0.5
    return state


def add_towers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open_clip know tiny towers of the two embeddings' widths as it knows the published ones."""
    architecture(folder, "tiny-768", 768)
    architecture(folder, "tiny-1024", 1024)
    publish(monkeypatch, "tiny-768", openai=OPENAI | {"quick_gelu": True, "hf_hub": L14})
    publish(monkeypatch, "tiny-1024", laion2b_s32b_b79k=OPENAI | {"hf_hub": H14})


def config(name: str, source: Path | None, **more: object) -> ExtractorConfig:
    wide = name == "nsfw_h_14"
    settings = {"model": "tiny-1024" if wide else "tiny-768", "preprocess": None, "batch_size": 2}
    return ExtractorConfig(
        name=name,
        kind="clip_head",
        pretrained="laion2b_s32b_b79k" if wide else "openai",
        source=None if source is None else str(source),
        dtype="float32",
        **(settings | more),
    )


def tower_of(name: str) -> str:
    return "open_clip_vit_h_14" if name == "nsfw_h_14" else "open_clip_vit_l_14"


def folder_with(folder: Path, name: str, state: State) -> Path:
    """Both files under their published names."""
    folder.mkdir()
    torch.save(state, folder / published()[name].file)
    clip = random_clip("tiny-1024" if name == "nsfw_h_14" else "tiny-768").state_dict()
    file = folder / published()[tower_of(name)].file
    save_file(clip, file) if file.suffix == ".safetensors" else torch.save(clip, file)
    return folder


def values(settings: ExtractorConfig, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    extractor = load_extractor(settings, CPU)
    assert extractor.images is not None
    got = extractor.images(images)
    assert got.keys() == {"value"}
    return got["value"]
