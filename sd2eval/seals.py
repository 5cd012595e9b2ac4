"""JSON records that carry their own SHA-256, so that a flipped byte anywhere in them is found.

The digest is the last key, over the bytes that the record would have without it. Records of version 0.1 have
none and are read as they are. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"
"""The last key of a sealed record."""
LEAD = b',\n "sha256": "'
END = b"\n}\n"


def to_bytes(data: Any) -> bytes:
    """Return JSON as a run folder writes it; the same data give the same bytes."""
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def seal(data: Mapping[str, Any]) -> bytes:
    """Return a record, which is not empty, with its digest, as bytes."""
    body = to_bytes(dict(data))
    return body.removesuffix(END) + LEAD + hashlib.sha256(body).hexdigest().encode() + b'"' + END


def unseal(raw: bytes, *, required: bool = False) -> dict[str, Any]:
    """Return a record without its digest.

    Args:
        raw: the bytes of the file.
        required: whether a record without a digest is refused as well.

    Raises:
        ValueError: it is no JSON object, or not what was sealed.
    """
    data = json.loads(raw)
    if not isinstance(data, dict):
        raise ValueError("not a record")
    if data.pop(KEY, None) is None:
        if required:
            raise ValueError(f"its {KEY} is missing")
        return data
    body, _, digest = raw.rpartition(LEAD)
    if digest != hashlib.sha256(body + END).hexdigest().encode() + b'"' + END:
        raise ValueError("it was changed since it was written: its SHA-256 differs")
    return data
