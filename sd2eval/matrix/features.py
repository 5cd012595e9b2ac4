"""Features of a run's PNGs and of the real images under several protocols, each computed once per content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ProtocolConfig, digest
from sd2eval.config.schema import identity_fields
from sd2eval.dataset import Dataset
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor, Images
from sd2eval.images import for_protocol
from sd2eval.matrix.pngs import CellImages, Png, batches
from sd2eval.matrix.presets import OF_NETWORK, ROLE, Preset
from sd2eval.reference import files_digest, reference_digest, reference_features
from sd2eval.store import read_cached, write_cached

PART = 512
"""Images whose features are one file of the cache: what an interruption loses at most."""
Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Look:
    """How a protocol sees a PNG: two with the same key see the same numbers."""

    key: str
    extractor: Extractor
    protocol: ProtocolConfig
    resized: bool


def load_networks(
    presets: Sequence[Preset], device: torch.device
) -> tuple[dict[str, Extractor], dict[str, str]]:
    """Load each preset's network, equal ones once.

    Returns:
        The networks by preset, and for the presets without one the reason.
    """
    loaded: dict[str, Extractor] = {}
    found: dict[str, Extractor] = {}
    reasons: dict[str, str] = {}
    for preset in presets:
        config = preset.protocol.distance
        key = digest(_network(preset.protocol) | {"source": config.source})
        try:
            if key not in loaded:
                loaded[key] = load_extractor(config, device)
            found[preset.name] = loaded[key]
        except InputError as error:
            reasons[preset.name] = str(error)
    return found, reasons


def look(protocol: ProtocolConfig, extractor: Extractor, side: int) -> Look:
    """Return how a protocol sees square PNGs of `side` pixels.

    At the protocol's own size no filter changes a pixel, and of a square nothing is cut or squashed.
    """
    resized = protocol.fit != "none" and protocol.resolution != side
    geometry = {"resolution": protocol.resolution, "resize": protocol.resize} if resized else {}
    key = digest(_network(protocol) | geometry | {"weights": extractor.digest})
    return Look(key, extractor, protocol, resized)


def _network(protocol: ProtocolConfig) -> dict[str, object]:
    """Return what a network computes by; its name is no part of that."""
    fields = identity_fields(protocol.distance)
    return {key: fields[key] for key in OF_NETWORK}


def real_features(
    dataset: Dataset,
    presets: Sequence[Preset],
    networks: Mapping[str, Extractor],
    on_images: Callable[[int], None],
) -> dict[str, tuple[str, Features]]:
    """Return by preset the digest and the features [m, d] of the real images.

    Raises:
        InputError: an image cannot be read.
    """
    total = files_digest(dataset.reference)
    by_digest: dict[str, Features] = {}
    found: dict[str, tuple[str, Features]] = {}
    for preset in presets:
        network = networks[preset.name]
        key = reference_digest(total, preset.protocol, ROLE, network)
        if key not in by_digest:
            wanted = {ROLE: (network, key)}
            by_digest |= {
                key: reference_features(dataset.reference, preset.protocol, wanted, on_images)[ROLE]
            }
        found[preset.name] = key, by_digest[key]
    return found


def cell_features(
    images: CellImages, looks: Sequence[Look], on_images: Callable[[int], None]
) -> dict[str, Features]:
    """Return the features [n, d] of a cell's images by the key of each look, from the cache where there.

    Each PNG is decoded once for all looks, `BATCH` of them at a time.

    Raises:
        InputError: an image cannot be read or was changed.
    """
    distinct = list({look.key: look for look in looks}.values())
    parts: dict[str, list[Features]] = {look.key: [] for look in distinct}
    for start in range(0, len(images.pngs), PART):
        pngs = images.pngs[start : start + PART]
        for key, array in _part(pngs, distinct, on_images).items():
            parts[key].append(array)
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def _part(
    pngs: Sequence[Png], looks: Sequence[Look], on_images: Callable[[int], None]
) -> dict[str, Features]:
    total = hashlib.sha256("".join(png.sha256 for png in pngs).encode()).hexdigest()
    keys = {look.key: digest({"pngs": total, "look": look.key}) for look in looks}
    cached = {name: read_cached(key) for name, key in keys.items()}
    found = {name: array for name, array in cached.items() if array is not None and len(array) == len(pngs)}
    missing = [look for look in looks if look.key not in found]
    if not missing:
        on_images(len(pngs))
        return found
    chunks: dict[str, list[Features]] = {look.key: [] for look in missing}
    for batch in batches(pngs):
        for look in missing:
            chunks[look.key].append(_seen(look, batch))
        on_images(len(batch))
    for name, arrays in chunks.items():
        found[name] = np.concatenate(arrays)
        write_cached(keys[name], found[name])
    return found


def _seen(look: Look, batch: Sequence[Images]) -> Features:
    assert look.extractor.images is not None
    shown = [for_protocol(image, look.protocol) for image in batch] if look.resized else batch
    return look.extractor.images(np.stack(shown))["features"]
