"""Features of the real images: computed once per (images, protocol, extractor), cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import ProtocolConfig
from sd2eval.features import Extractor
from sd2eval.images import for_protocol, load_rgb
from sd2eval.store import read_cached, write_cached

CHUNK = 64
"""Images held in memory at a time."""


def reference_digest(files: Sequence[Path], protocol: ProtocolConfig, extractor: Extractor) -> str:
    """Return the SHA-256 over everything the reference's features depend on: bytes, geometry, extractor."""
    total = hashlib.sha256(
        f"{protocol.resolution}/{protocol.resize}/{protocol.fit}/{extractor.digest}".encode()
    )
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def reference_features(
    files: Sequence[Path],
    protocol: ProtocolConfig,
    extractor: Extractor,
    digest: str,
    on_images: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """Return the features of the real images, float32 [m, d], from the cache if they are there.

    Args:
        files: image files.
        protocol: how they are made square.
        extractor: of the distance.
        digest: of all this, by `reference_digest`.
        on_images: called with the number of images done; may raise to stop.
    """
    cached = read_cached(digest)
    if cached is not None and len(cached) == len(files):
        return cached
    chunks = []
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        chunks.append(extractor.images(np.stack([for_protocol(load_rgb(file), protocol) for file in part])))
        on_images(len(part))
    features = np.concatenate(chunks)
    write_cached(digest, features)
    return features
