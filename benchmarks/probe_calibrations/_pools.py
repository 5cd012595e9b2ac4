"""Rendered scenes, looked at once, for the calibrations that resample them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ExtractorConfig, probing
from sd2eval.extractors import load_extractor
from sd2eval.mini.render import render
from sd2eval.mini.world import Scene, draw_scene

Array = NDArray[np.float64]
SEED = 77
"""Of scenes that neither the data set nor any training has."""


@cache
def extractor(slot: str) -> Any:
    """Return the mini protocol's network in a role."""
    config: ExtractorConfig = probing.from_overrides()[0].protocol.extractor(slot)
    return load_extractor(config, torch.device("cpu"))


def scenes(count: int, wanted: Callable[[Scene], bool] = lambda scene: True) -> list[Scene]:
    """Return the first `count` scenes of the world that are wanted."""
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = draw_scene(SEED, index)
        if wanted(scene):
            found.append(scene)
        index += 1
    return found


def images(chosen: list[Scene]) -> NDArray[np.uint8]:
    return np.stack([render(scene)[0] for scene in chosen])


def features(slot: str, pictures: NDArray[np.uint8]) -> Array:
    return np.asarray(extractor(slot).images(pictures)["features"], dtype=np.float64)


def shuffled(pictures: NDArray[np.uint8], size: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """Return pictures with their squares of `size` pixels in another order: all there, and nothing whole."""
    rng = np.random.default_rng(seed)
    n, side = len(pictures), pictures.shape[1] // size
    squares = pictures.reshape(n, side, size, side, size, 3).swapaxes(2, 3).reshape(n, -1, size, size, 3)
    mixed = np.stack([one[rng.permutation(side * side)] for one in squares])
    return mixed.reshape(n, side, side, size, size, 3).swapaxes(2, 3).reshape(pictures.shape)
