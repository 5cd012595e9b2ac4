"""How much disk a sweep takes; known without torch, so that `doctor` can ask where torch is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

from sd2eval.config import ExtractorConfig, SweepConfig
from sd2eval.metrics import METRICS
from sd2eval.transfer.meter import format_bytes

PNG_RATIO = 0.56
"""Size of a PNG against its raw bytes; a 512-pixel photograph gave 438 kB."""


def disk_bytes(config: SweepConfig, images: int) -> float:
    """Return the bytes of a sweep's images and features.

    Args:
        config: the sweep.
        images: that it draws, all cells together.
    """
    slots = {METRICS[name].extractor for name in config.protocol.metrics if METRICS[name].kind != "paired"}
    features = images * 4 * sum(_width(config.protocol.extractor(slot)) for slot in slots if slot)
    pixels = images * 3 * config.protocol.resolution**2 * PNG_RATIO if config.images == "all" else 0.0
    return pixels + features


def shortage(config: SweepConfig, images: int, folder: Path) -> str:
    """Return in one line that a folder's disk has less room than a sweep will take; empty if it has enough.

    Args:
        config: the sweep.
        images: that are still to be drawn.
        folder: which exists.
    """
    needed, free = disk_bytes(config, images), shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return (
        f"{folder} has {format_bytes(free)} free, about {format_bytes(int(needed))} are needed: the sweep "
        "stops where the disk is full, and goes on when there is room; images=grid keeps no single images"
    )


def _width(extractor: ExtractorConfig) -> int:
    """Return the numbers per image of the known extractors."""
    return {"inception": 2048, "open_clip": 1024, "mini_classifier": 32, "mini_clip": 96}.get(
        extractor.kind, 1024
    )
