"""The PNG images of a run: which there must be, and each one read only if it is the one that was scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sd2eval.errors import InputError
from sd2eval.images import Pixels, digest, load_rgb
from sd2eval.plan import Cell
from sd2eval.records import RunInfo
from sd2eval.store import WAY_OUT, RunFolder

BATCH = 64
"""Images held in memory at a time."""
READERS = 4
"""Threads; Pillow decodes without holding the others up."""


@dataclass(frozen=True, slots=True)
class Png:
    """One valid image of a run."""

    file: Path
    sha256: str
    """Of its pixels, from the manifest."""
    shard: Path
    """The folder of its manifest."""


@dataclass(frozen=True, eq=False)
class CellImages:
    """The images of one cell that enter its scores."""

    cell: Cell
    pngs: list[Png]
    """In prompt order, invalid ones left out."""
    valid: NDArray[np.bool_]
    """[n] over all captions of the run; also False where nothing was drawn."""
    side: int
    """Pixels; of its PNGs, all square."""


def images_of(
    store: RunFolder, info: RunInfo, checkpoint: str, scales: Sequence[float], side: int
) -> list[CellImages]:
    """Return the images of a complete checkpoint at some guidance scales, from its manifests.

    Args:
        store: the run.
        info: its record.
        checkpoint: one of the run's.
        scales: some of the run's.
        side: pixels of its PNGs.

    Raises:
        InputError: a PNG is not there.
    """
    places = {prompt["caption_id"]: place for place, prompt in enumerate(store.read_prompts())}
    found: dict[float, list[Png]] = {scale: [] for scale in scales}
    valid = {scale: np.zeros(len(places), dtype=np.bool_) for scale in scales}
    for block in store.blocks(checkpoint):
        shard = store.path / "shards" / checkpoint / block.key
        for image in store.read_manifest(checkpoint, block)["images"]:
            scale = image["guidance_scale"]
            if scale in found and not image["invalid"]:
                valid[scale][places[image["caption_id"]]] = True
                file = store.image_folder(Cell(checkpoint, scale)) / f"{image['caption_id']}.png"
                found[scale].append(Png(file, image["sha256"], shard))
    for png in (png for pngs in found.values() for png in pngs):
        if not png.file.is_file():
            raise InputError(_missing(png, str(info.config["images"])))
    return [CellImages(Cell(checkpoint, scale), found[scale], valid[scale], side) for scale in scales]


def batches(pngs: Sequence[Png]) -> Iterator[list[Pixels]]:
    """Yield the images in batches, each checked against its digest.

    Raises:
        InputError: one cannot be read or has other pixels than when it was scored.
    """
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(pngs), BATCH):
            yield list(pool.map(read, pngs[start : start + BATCH]))


def read(png: Png) -> Pixels:
    """Return an image, uint8 [H, W, 3].

    Raises:
        InputError: it cannot be read or has other pixels than when it was scored.
    """
    try:
        pixels = load_rgb(png.file)
    except InputError as error:
        raise InputError(f"{error}; {_again(png)}") from error
    if digest(pixels) != png.sha256:
        raise InputError(f"{png.file}: was changed since it was scored (its SHA-256 differs); {_again(png)}")
    return pixels


def _missing(png: Png, kept: str) -> str:
    if kept == "all":
        return f"{png.file}: is missing; {_again(png)}"
    return (
        f"{png.file}: is missing: the run kept no PNGs (images={kept}), and this computes from them; "
        "sweep into another folder with images=all"
    )


def _again(png: Png) -> str:
    return f"{WAY_OUT.format(png.shard.parents[2])}, or leave the cell out"
