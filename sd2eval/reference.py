"""Features of the real images: computed once per (images, protocol, extractor), cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import ProtocolConfig
from sd2eval.config.schema import REAL_GEOMETRY, features_digest, identity_fields
from sd2eval.errors import InputError
from sd2eval.extractors.base import Extractor, Images
from sd2eval.images import as_reference, load_rgb
from sd2eval.memory import in_smaller_batches, pieces
from sd2eval.store import read_cached, write_cached

CHUNK = 64
"""Images held in memory at a time."""


def files_digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 over the bytes of the real images, in order."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def reference_digest(files: str, protocol: ProtocolConfig, slot: str, extractor: Extractor) -> str:
    """Return the SHA-256 over everything the reference's features depend on: bytes, geometry, extractor.

    Args:
        files: `files_digest` of the images.
        protocol: how they are made square, and how the extractor is set up.
        slot: the extractor's role or name in the protocol.
        extractor: the loaded network.
    """
    geometry = {key: getattr(protocol, key) for key in REAL_GEOMETRY}
    return features_digest(geometry | identity_fields(protocol.extractor(slot)), files, extractor.digest)


def reference_features(
    files: Sequence[Path],
    protocol: ProtocolConfig,
    extractors: Mapping[str, tuple[Extractor, str]],
    on_images: Callable[[int], None] = lambda count: None,
    on_smaller: Callable[[int], None] = lambda size: None,
) -> dict[str, NDArray[np.float32]]:
    """Return the features of the real images by each extractor, float32 [m, d], from the cache where there.

    Every image is read and made square once, whatever the number of extractors.

    Args:
        files: image files.
        protocol: how they are made square.
        extractors: by slot the network and its `reference_digest`.
        on_images: called with the number of images done; may raise to stop.
        on_smaller: told how many images at a time memory is tried with when it was not enough.

    Raises:
        InputError: an image cannot be read, or an extractor has no features.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for slot, (extractor, key) in extractors.items():
        if extractor.images is None:
            raise InputError(f"extractor '{extractor.name}': has no features to compare real images by")
        cached = read_cached(key)
        if cached is not None and len(cached) == len(files):
            found[slot] = cached
    missing = {slot: pair for slot, pair in extractors.items() if slot not in found}
    chunks: dict[str, list[NDArray[np.float32]]] = {slot: [] for slot in missing}
    size = CHUNK
    for piece in pieces(len(files) if missing else 0, CHUNK):
        images = [as_reference(load_rgb(file), protocol) for file in files[piece]]
        for slot, (extractor, _) in missing.items():
            found_here, size = in_smaller_batches(partial(_features, extractor, images), size, on_smaller)
            chunks[slot].append(found_here)
        on_images(len(images))
    for slot, (_, key) in missing.items():
        found[slot] = np.concatenate(chunks[slot])
        write_cached(key, found[slot])
    return found


def _features(extractor: Extractor, images: Sequence[Images], size: int) -> NDArray[np.float32]:
    """Return the features [N, d] of images [H, W, 3], `size` at a time, one by one where shapes differ."""
    assert extractor.images is not None
    alike = len({image.shape for image in images}) == 1
    parts = [np.stack(images[piece]) for piece in pieces(len(images), size if alike else 1)]
    return np.concatenate([extractor.images(part)["features"] for part in parts])
