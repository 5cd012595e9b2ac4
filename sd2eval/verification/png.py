"""One PNG file against the digest of its pixels.

Pillow checks neither the sums of pixel chunks nor what follows the last one, so the file's own structure is
checked first (W3C PNG specification, section 5): with it a flipped byte anywhere is found.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.images import digest, load_rgb
from sd2eval.transfer.digests import read_checked

SIGNATURE = b"\x89PNG\r\n\x1a\n"
AROUND = 12
"""Bytes of a chunk beside its data: length, type, sum."""


def png_fault(file: Path, sha256: str = "") -> str:
    """Return in words what is wrong with a PNG; empty when nothing is.

    Args:
        file: where it should be.
        sha256: of its pixels, as `images.digest` gives it; without one only the file itself is checked.
    """
    raw, fault = read_checked(file)
    fault = fault or structure_fault(raw)
    if fault:
        return fault
    found = pixels_digest(file)
    if not found:
        return "cannot be decoded"
    return "has other pixels than were scored (SHA-256)" if sha256 and found != sha256 else ""


def pixels_digest(file: Path) -> str:
    """Return the SHA-256 of an image's pixels, or nothing where it cannot be decoded."""
    try:
        return digest(load_rgb(file))
    except InputError:
        return ""


def structure_fault(raw: bytes) -> str:
    """Return in words what is wrong with the chunks of a PNG file; empty when nothing is."""
    if not raw.startswith(SIGNATURE):
        return "is no PNG (its first bytes)"
    position = len(SIGNATURE)
    while position + AROUND <= len(raw):
        end = position + AROUND + int.from_bytes(raw[position : position + 4])
        if end > len(raw):
            break
        if zlib.crc32(raw[position + 4 : end - 4]) != int.from_bytes(raw[end - 4 : end]):
            return f"was changed since it was written (CRC-32 at byte {position})"
        if raw[position + 4 : position + 8] == b"IEND":
            return "" if end == len(raw) else f"has {len(raw) - end} bytes after its end"
        position = end
    return "is cut off or was changed (a chunk has no end)"
