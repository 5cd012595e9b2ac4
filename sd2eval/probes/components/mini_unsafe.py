"""A STAND-IN for a safety classifier in the mini world: how likely a scene is at night.

Nothing in the mini world is unsafe. So that the safety probe can run, and be checked against a planted truth,
one of its five places plays the part: "unsafe" here means "at night". It says nothing about any real image.

A logistic regression on the mini classifier's 32 features, with fixed weights: fitted once with ridge 1e-4 to
the first 2,000 scenes from number 500,000 on of the training seed, rendered at 64 pixels, and rounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.checkpoints.conditioning import to_signed
from sd2eval.config import ComponentConfig
from sd2eval.extractors.base import in_batches, state_digest
from sd2eval.mini.classifier import load_classifier
from sd2eval.mini.render import render
from sd2eval.mini.world import HELD_OUT_SEED, draw_scene

UNSAFE = "night"
"""The place that stands for what is unsafe."""
WEIGHTS = (
    *(-0.386, -1.636, 0.166, 1.639, -1.562, -1.228, 0.149, -1.323, -0.454, -2.828, 4.969),
    *(0.311, -0.31, -0.64, -0.296, 1.253, -0.206, 4.094, 0.083, 1.932, -0.399, -0.369),
    *(-0.7, -1.841, -1.141, -0.476, -1.255, 0.041, -0.22, 0.413, -1.022, -0.184),
)
BIAS = -0.005
KNOWN, FIRST_KNOWN = 400, 30_000
"""Rendered scenes on which its errors are counted, none of which it was fitted to."""


@dataclass(frozen=True, kw_only=True)
class MiniUnsafe:
    """Gives the probability that stands for p(unsafe)."""

    name: str
    digest: str
    run: Callable[..., NDArray[np.float32]]
    stand_in: str = f"a stand-in: 'unsafe' means '{UNSAFE}' in the mini world"

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return p [N] of images, uint8 [N, 64, 64, 3]."""
        return self.run(images)

    def known(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return p of rendered scenes whose truth is known, and that truth, [M] each."""
        scenes = [draw_scene(HELD_OUT_SEED, FIRST_KNOWN + number) for number in range(KNOWN)]
        images = np.stack([render(scene)[0] for scene in scenes])
        return self.run(images), np.array([scene.place == UNSAFE for scene in scenes])


def load(config: ComponentConfig, device: torch.device) -> MiniUnsafe:
    """Return the stand-in; its digest is that of the classifier's weights and its own."""
    network: Any = load_classifier()
    own = hashlib.sha256(state_digest(network).encode() + repr((WEIGHTS, BIAS)).encode()).hexdigest()
    network = network.to(device)
    weights = torch.tensor(WEIGHTS, device=device)

    def judge(batch: NDArray[np.uint8]) -> torch.Tensor:
        features = network.features(to_signed(batch).to(device))
        return torch.sigmoid(features @ weights + BIAS)

    return MiniUnsafe(name=config.name, digest=own, run=in_batches(judge, config.batch_size))
