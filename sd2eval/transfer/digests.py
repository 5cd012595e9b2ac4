"""Size and digest of a file against what is published or recorded of it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sd2eval.errors import InputError

HEX_LENGTH = {"md5": 32, "sha1": 40, "sha256": 64}
SHORTEST_PREFIX = 8
"""Hexadecimal digits of a SHA-256 in published file names such as `dpt_hybrid-midas-501f0c75.pt`."""


UNREADABLE, MISSING = "cannot be read", "is missing"
"""What is said of a file that may be whole; and of one that is not there."""


def read_checked(path: Path, sha256: str | None = None) -> tuple[bytes, str]:
    """Return a file's bytes, and in words what is wrong with them; nothing if they have the digest given."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return b"", MISSING
    except OSError as error:
        return b"", f"{UNREADABLE} ({error.strerror or error})"
    if not raw:
        return b"", "is empty"
    other = sha256 and hashlib.sha256(raw).hexdigest() != sha256
    return raw, "was changed since it was written (its SHA-256 differs)" if other else ""


def fault_of(path: Path, *, size: int | None = None, digest: str | None = None) -> str:
    """Return in words what about a file's size or digest is not as given; empty when all is right.

    Raises:
        InputError: the file cannot be read.
    """
    algorithm, digits = parse_digest(digest) if digest else ("", "")
    try:
        length = path.stat().st_size
        if size is not None and length != size:
            return f"has {length} bytes, not {size}"
        found = file_digest(path, algorithm) if algorithm else ""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return "" if found.startswith(digits) else f"has {algorithm} {found}, not {digits}"


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def parse_digest(digest: str) -> tuple[str, str]:
    """Return algorithm and lower-case digits of `sha256:HEX`, `sha1:HEX` or `md5:HEX`."""
    algorithm, _, digits = digest.partition(":")
    whole = len(digits) == HEX_LENGTH.get(algorithm)
    prefix = algorithm == "sha256" and SHORTEST_PREFIX <= len(digits) < HEX_LENGTH["sha256"]
    if not (whole or prefix) or not re.fullmatch("[0-9a-fA-F]+", digits):
        raise ValueError(f"{digest!r} is not sha256:, sha1: or md5: and hexadecimal digits")
    return algorithm, digits.lower()
