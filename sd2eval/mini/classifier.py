"""The network in Inception's place: a small ConvNet of the world's attributes and its 32 pooled features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from sd2eval.mini import WEIGHTS
from sd2eval.mini.render import place_objects
from sd2eval.mini.world import COLOURS, PLACES, SHAPES, SIZES, Scene, stack_of

FEATURES = 32

#: What the head answers, each with yes or no: is there an object of this colour and shape, of this size;
#: which place; how many objects; does one stand on another.
ATTRIBUTES: tuple[str, ...] = (
    *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
    *SIZES,
    *PLACES,
    "1 object",
    "2 objects",
    "3 objects",
    "stacked",
)


def attributes(scene: Scene) -> NDArray[np.float32]:
    """The scene's answers to ``ATTRIBUTES``: float32 of 0 and 1."""
    number = len(place_objects(scene))
    true = {f"{item.colour} {item.shape}" for item in scene.items} | {item.size for item in scene.items}
    true |= {scene.place, f"{number} object" + "s" * (number > 1)} | (
        {"stacked"} if stack_of(scene) else set()
    )
    return np.array([name in true for name in ATTRIBUTES], np.float32)


class MiniClassifier(nn.Module):
    """Four stages of two convolutions, average pooling to 32 features, one linear head."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 64), features: int = FEATURES) -> None:
        super().__init__()
        stages, before = [], 3
        for width in widths:
            stages += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            stages += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            before = width
        self.stages = nn.Sequential(*stages)
        self.last = nn.Conv2d(before, features, 1)
        self.head = nn.Linear(features, len(ATTRIBUTES))

    def features(self, images: Tensor) -> Tensor:
        """Images [N, 3, 64, 64] in [-1, 1] -> pooled features, float32 [N, 32], each at least 0."""
        return F.relu(self.last(self.stages(images))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``ATTRIBUTES``: float32 [N, 43]."""
        logits: Tensor = self.head(self.features(images))
        return logits


def load_classifier(weights: Path = WEIGHTS) -> MiniClassifier:
    """The trained classifier as stored (float16, upcast), ready for inference."""
    folder = weights / "classifier"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = MiniClassifier(widths=tuple(config["widths"]), features=config["features"])
    model.load_state_dict(
        {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    )
    return model.eval().requires_grad_(False)
