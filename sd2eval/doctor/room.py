"""What a sweep needs of this machine: disk, memory, its data set, sensors."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from sd2eval.config import SweepConfig
from sd2eval.doctor import files
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from sd2eval.doctor.plan import Plan
from sd2eval.errors import InputError
from sd2eval.footprint import disk_bytes
from sd2eval.transfer.meter import format_bytes

MARGIN = 1.2
"""Times the estimate; less free than that is a warning."""
FILES = 10_000
"""That a sweep writes besides its images, generously."""
PROCESS_BYTES = 2e9
"""Of Python, torch and a batch of images."""
UNKNOWN_BYTES = 5.3e9
"""Of a checkpoint that the table does not know: Stable Diffusion 2 in float32."""
PROBE_SECONDS = 0.15
"""Of the energy meter: a counter must have moved in it."""


def disk(plan: Plan, fetched: dict[Path, int]) -> Iterator[Finding]:
    """Compare the free space with the plan, for each disk that is written to.

    Args:
        plan: the sweep.
        fetched: bytes that will be downloaded, by the folder that they go to.
    """
    images = int(disk_bytes(plan.config, plan.images_left))
    needs = {plan.folder: images, **{folder: size for folder, size in fetched.items() if size}}
    disks: dict[int, dict[Path, int]] = {}
    for folder, size in needs.items():
        disks.setdefault(files.existing(folder).stat().st_dev, {})[folder] = size
    for parts in disks.values():
        yield _room(parts)
    many = plan.images_left if plan.config.images == "all" else 0
    yield from _names(plan.folder, many + FILES)


def _room(parts: dict[Path, int]) -> Finding:
    first, needed = next(iter(parts)), sum(parts.values())
    free = shutil.disk_usage(files.existing(first)).free
    found = f"{format_bytes(free)} free at {', '.join(map(str, parts))}; about {format_bytes(needed)} needed"
    advice = "make room, or write elsewhere: out=DIR; images=grid keeps no single images"
    level = PROBLEM if free < needed else WARNING if free < MARGIN * needed else OK
    return Finding("disk", level, found, "" if level == OK else advice, about=str(first))


def _names(folder: Path, count: int) -> Iterator[Finding]:
    """Say where a file system has no room for so many files, however small they are."""
    system = os.statvfs(files.existing(folder))
    if system.f_files and system.f_favail < count:  # 0: they are not limited
        found = f"{system.f_favail:,} more files fit at {folder} (inodes); about {count:,} needed"
        advice = "images=grid keeps no single images; or write elsewhere: out=DIR"
        yield Finding("disk", PROBLEM, found, advice, about=str(folder))


def data(plan: Plan) -> Iterator[Finding]:
    """Read the captions, draw the prompts and look for their images, as the sweep does."""
    from sd2eval.dataset import load_dataset
    from sd2eval.identity import check_reference

    config = plan.config
    try:
        dataset = load_dataset(config.data, config.prompts, plan.definitions)
        check_reference(dataset, config.protocol)
    except InputError as error:
        coco = "get it: python -m sd2eval data fetch coco; check it: python -m sd2eval data verify root=DIR"
        advice = coco if config.data.name.startswith("coco") else "see docs/data.md"
        yield Finding("data", PROBLEM, str(error), advice, about=config.data.name)
        return
    found = f"{config.data.name}: {len(dataset.prompts):,} captions, {len(dataset.reference):,} images"
    yield Finding("data", OK, found, about=config.data.name)


def memory_need(checkpoints: list[int | None], networks: list[int | None], on_gpu: bool) -> float:
    """Return the bytes of main memory that a sweep takes, roughly.

    Args:
        checkpoints: bytes of each; only one is in memory at a time. None: unknown.
        networks: of each of the metrics' networks, which stay.
        on_gpu: whether they are then moved to a GPU, one after another.
    """
    largest = max((UNKNOWN_BYTES if size is None else size for size in checkpoints), default=0.0)
    kept = [size or 0 for size in networks]
    return PROCESS_BYTES + (max([largest, *kept]) if on_gpu else largest + sum(kept))


def energy(config: SweepConfig) -> Iterator[Finding]:
    """Measure a moment as the sweep measures its stages, and say what was read and what assumed."""
    from sd2eval.energy import EnergyMeter

    meter = EnergyMeter(config.energy.country)
    with meter.task("probe"):
        time.sleep(PROBE_SECONDS)
    if meter.method == "measured":
        yield Finding("energy", OK, "the counters of CPU and GPU can be read")
        return
    advice = "figures are labelled estimated; to measure: make /sys/class/powercap/*/energy_uj readable"
    yield Finding("energy", WARNING, meter.note or "no counter moved", advice)
