"""The rendered training set, made once and mapped into memory by every training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sd2eval.mini.captions import training_caption
from sd2eval.mini.render import render
from sd2eval.mini.world import TRAIN_SEED, draw_scene

#: Number of training scenes that are rendered, by size in pixels.
RENDERED = {64: 40_000, 96: 12_000}


@dataclass(frozen=True, slots=True)
class SceneSet:
    """The first n scenes of a seed: images uint8 [n, size, size, 3], inverse depths uint8 [n, size, size]."""

    seed: int
    images: NDArray[np.uint8]
    depths: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> SceneSet:
        """The first ``count`` scenes."""
        return SceneSet(self.seed, self.images[:count], self.depths[:count])

    def captions(self, variant: int = 0) -> list[str]:
        """One training caption per scene; another ``variant`` is another wording of the same scenes."""
        return training_captions(len(self), variant, self.seed)


def training_captions(count: int, variant: int = 0, seed: int = TRAIN_SEED) -> list[str]:
    """One caption for each of the first ``count`` training scenes."""
    return [training_caption(draw_scene(seed, index), seed, index, variant) for index in range(count)]


def load_scenes(folder: Path, count: int, size: int, seed: int = TRAIN_SEED) -> SceneSet:
    """The first ``count`` scenes at ``size`` pixels, from ``folder`` or rendered into it (0.7 ms each)."""
    stem = f"scenes_{seed}_{size}_{count}"
    files = [folder / f"{stem}_images.npy", folder / f"{stem}_depths.npy"]
    if not all(file.exists() for file in files):
        for file, array in zip(files, _render_all(count, size, seed), strict=True):
            part = file.with_suffix(f".{os.getpid()}.part.npy")
            np.save(part, array)
            part.replace(file)
    images, depths = (np.load(file, mmap_mode="r") for file in files)
    return SceneSet(seed, images, depths)


def _render_all(count: int, size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = np.empty((count, size, size, 3), np.uint8)
    depths = np.empty((count, size, size), np.uint8)
    for index in range(count):
        images[index], depth = render(draw_scene(seed, index), size)
        depths[index] = np.rint(depth * 255)
    return images, depths
