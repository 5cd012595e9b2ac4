"""Every shard and every PNG, many at a time; then what is missing and what is too many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval import evaluate
from sd2eval.plan import Block, Cell
from sd2eval.records import SCHEMA_VERSION, ImageRecord, RunInfo
from sd2eval.seals import unseal
from sd2eval.store import RunFolder
from sd2eval.transfer.digests import MISSING, read_checked
from sd2eval.verification.findings import Finding
from sd2eval.verification.png import png_fault
from sd2eval.verification.record import arrays_of

READERS = 16
"""Threads at most: Pillow, zlib and hashlib work beside each other."""
KEYS = {"schema_version", "checkpoint", "guidance_scales", "features_sha256", "images", "energy"}
LATER_KEYS = {"kept"}
"""Of a manifest that not every version wrote."""


@dataclass(frozen=True, slots=True)
class Place:
    """A shard by its folder name, and the captions that it must hold."""

    checkpoint: str
    block: Block
    captions: Sequence[int]
    """Ids; empty where `prompts.json` is damaged."""

    @property
    def key(self) -> str:
        """`<checkpoint>/<block>`."""
        return f"{self.checkpoint}/{self.block.key}"


@dataclass(slots=True)
class Checked:
    """What was found in one shard."""

    place: Place
    findings: list[Finding] = field(default_factory=list)
    scales: Sequence[float] = ()
    """Drawn; empty where the manifest is damaged."""
    images: int = 0
    pngs: int = 0
    """That are there and were read."""

    def add(self, file: str, what: str) -> None:
        """Record a fault of one of the shard's own files."""
        path = f"shards/{self.place.key}/{file}"
        self.findings.append(Finding(path=path, what=what, part="shard", shard=self.place.key))


def places(store: RunFolder, info: RunInfo, captions: Sequence[int]) -> tuple[list[Place], list[Finding]]:
    """Return the shards of a run in order, and what lies among them that is none."""
    found: list[Place] = []
    others: list[Finding] = []
    for name in evaluate.checkpoint_names(info):
        folder = store.path / "shards" / name
        end = -1
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.name.startswith("."):
                continue  # a killed process's
            block = _block(entry, len(captions))
            what = "is no shard of this run: no such block" if block is None else ""
            if block is not None and block.first <= end:
                what = "is a shard of captions that another one has"
            if block is None or what:
                path = entry.relative_to(store.path).as_posix()
                others.append(Finding(path=path, what=what, part="extra"))
                continue
            end = block.last
            found.append(Place(name, block, captions[block.first : block.last + 1]))
    return found, others


def _block(entry: Path, captions: int) -> Block | None:
    try:
        block = Block.parse(entry.name)
    except ValueError:
        return None
    inside = 0 <= block.first <= block.last and (not captions or block.last < captions)
    return block if inside and block.key == entry.name else None


def check_all(
    store: RunFolder, info: RunInfo, wanted: Sequence[Place], on_shard: Callable[[Checked], None]
) -> list[Checked]:
    """Return what was found in each shard, in order; each is in memory only while it is looked at.

    Args:
        store: the run.
        info: its record.
        wanted: the shards.
        on_shard: called with each one when it is done, in this thread.
    """
    pool = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1))
    try:
        tasks: list[Future[Checked]] = [pool.submit(check, store, info, place) for place in wanted]
        for task in as_completed(tasks):
            on_shard(task.result())
        return [task.result() for task in tasks]
    finally:
        pool.shutdown(cancel_futures=True)


def check(store: RunFolder, info: RunInfo, place: Place) -> Checked:
    """Look at one shard: its manifest, its arrays, the PNGs of its images."""
    found = Checked(place)
    folder = store.path / "shards" / place.key
    raw, fault = read_checked(folder / "manifest.json")
    try:
        manifest = unseal(raw) if not fault else {}
        fault = fault or _manifest_fault(manifest, info, place)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault = f"is damaged: {error}"
    if fault:
        found.add("manifest.json", fault)
        _, fault = read_checked(folder / "features.npz")
        if fault:
            found.add("features.npz", fault)
        return found
    records = [ImageRecord(**image) for image in manifest["images"]]
    found.scales, found.images = manifest["guidance_scales"], len(records)
    fault = _features_fault(folder / "features.npz", manifest, info, records)
    if fault:
        found.add("features.npz", fault)
    _check_pngs(store, info, manifest, records, found)
    return found


def _manifest_fault(manifest: Mapping[str, Any], info: RunInfo, place: Place) -> str:
    """Return where a manifest is not that of its place."""
    if not KEYS <= manifest.keys() <= KEYS | LATER_KEYS or manifest["schema_version"] > SCHEMA_VERSION:
        return "is damaged: has other fields"
    if manifest["checkpoint"] != place.checkpoint:
        return f"is another checkpoint's: {manifest['checkpoint']}"
    scales = manifest["guidance_scales"]
    if not scales or not set(scales) <= set(info.config["guidance_scales"]) or len(set(scales)) < len(scales):
        return f"is damaged: has guidance scales {scales}"
    records = [(image["caption_id"], image["guidance_scale"]) for image in manifest["images"]]
    if len(records) != len(place.block) * len(scales):
        return f"has {len(records)} images, not {len(place.block)} captions at {len(scales)} scales"
    captions = place.captions or [caption for caption, _ in records[:: len(scales)]]
    if records != [(caption, scale) for caption in captions for scale in scales]:
        return "is another block's: its captions are not those of its name"
    return ""


def _features_fault(
    file: Path, manifest: Mapping[str, Any], info: RunInfo, records: Sequence[ImageRecord]
) -> str:
    raw, fault = read_checked(file, manifest["features_sha256"])
    if fault:
        return fault
    scales = len(manifest["guidance_scales"])
    valid = np.array([not record.invalid for record in records]).reshape(-1, scales)
    try:
        return _arrays_fault(arrays_of(raw), info, manifest["checkpoint"], valid)
    except Exception as error:  # damaged archives raise what they like
        return f"is damaged: {error}"


def _arrays_fault(
    arrays: Mapping[str, NDArray[Any]], info: RunInfo, checkpoint: str, valid: NDArray[np.bool_]
) -> str:
    for metric in evaluate.planned_metrics(info, checkpoint):
        if metric.array not in arrays:
            return f"has no {metric.array}"
    for name, array in arrays.items():
        if array.shape[:2] != valid.shape:
            return f"{name} has shape {list(array.shape)}, not {list(valid.shape)} first"
        if not np.isfinite(array[valid]).all():
            return f"{name} is not finite for an image that is valid"
    return ""


def _check_pngs(
    store: RunFolder,
    info: RunInfo,
    manifest: Mapping[str, Any],
    records: Sequence[ImageRecord],
    found: Checked,
) -> None:
    """Check the PNGs that are there; they must be there where all were kept."""
    kept = manifest.get("kept", info.config["images"]) == "all"
    place = found.place
    for record in records:
        if record.invalid:
            continue
        file = store.image_folder(Cell(place.checkpoint, record.guidance_scale)) / f"{record.caption_id}.png"
        fault = png_fault(file, record.sha256)
        gone = fault == MISSING
        found.pngs += not gone
        if fault and (kept or not gone):
            path = file.relative_to(store.path).as_posix()
            found.findings.append(
                Finding(path=path, what=fault, part="png", shard=place.key, sha256=record.sha256)
            )


def missing(
    info: RunInfo, checked: Sequence[Checked], needed: Mapping[Cell, int], captions: int
) -> Iterator[Finding]:
    """Yield the captions of each checkpoint that have results and no shard, or that are not drawn yet.

    Args:
        info: of the run.
        checked: all of its shards; a damaged one counts as there.
        needed: by cell, how many captions its written results say were drawn.
        captions: of the run.
    """
    scales = info.config["guidance_scales"]
    auto = info.config["prompts"]["n"] == "auto"
    for name in evaluate.checkpoint_names(info):
        there = np.zeros((captions, len(scales)), dtype=np.bool_)
        for one in checked:
            if one.place.checkpoint == name:
                columns = [scales.index(scale) for scale in one.scales or scales]
                there[np.ix_(range(one.place.block.first, one.place.block.last + 1), columns)] = True
        lost = np.zeros(captions, dtype=np.bool_)
        for column, scale in enumerate(scales):
            need = needed.get(Cell(name, scale), 0)
            lost[:need] |= ~there[:need, column]
        for first, last in _ranges(lost):
            key = f"{name}/{Block(first, last).key}"
            what = "is missing: there are results of these captions"
            yield Finding(path=f"shards/{key}", what=what, part="shard", shard=key)
        drawn = int(there.all(axis=1).sum() + lost.sum())
        if drawn < captions and not auto:
            what = f"not finished: {drawn:,} of {captions:,} captions are drawn"
            yield Finding(path=f"shards/{name}", what=what, part="shard", state="unfinished")


def _ranges(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last position of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def later(now: Sequence[Place], checked: Sequence[Checked]) -> list[Checked]:
    """Return the shards that were published after those that were looked at, as not looked at."""
    known = {one.place.key for one in checked}
    return [Checked(place) for place in now if place.key not in known]


def surplus(
    store: RunFolder,
    info: RunInfo,
    checked: Sequence[Checked],
    captions: Sequence[int],
    finished: Callable[[Cell], bool],
) -> Iterator[Finding]:
    """Yield the files in the cells' image folders that belong to no published image."""
    ours: dict[Cell, set[str]] = {}
    for one in checked:
        for scale in one.scales or info.config["guidance_scales"]:
            names = ours.setdefault(Cell(one.place.checkpoint, scale), set())
            names.update(f"{caption}.png" for caption in one.place.captions)
    run = {f"{caption}.png" for caption in captions}
    for cell in evaluate.planned_cells(info) if captions else ():
        folder = store.image_folder(cell)
        names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        for name in sorted(names - ours.get(cell, set())):
            path = (folder / name).relative_to(store.path).as_posix()
            if name in run and not finished(cell):
                what = "was drawn by a process that ended before it published the shard; it is drawn again"
                yield Finding(path=path, what=what, part="extra", state="left over")
            elif not name.startswith("."):
                yield Finding(path=path, what="is no image of this run", part="extra")
