"""Digests recorded at first use, which keep a name from meaning other weights where none is published."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from sd2eval.cache import cache_folder
from sd2eval.errors import InputError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class FirstUse:
    """What was loaded under a name, the first time."""

    name: str
    origin: str
    """Repository, address or path it came from."""
    sha256: str
    date: str
    """UTC, ISO 8601."""


def record_file() -> Path:
    """Return where the digests are recorded; `SD2EVAL_CACHE` moves it."""
    return cache_folder() / "first_use.json"


def recorded() -> list[FirstUse]:
    """Return everything that was recorded.

    Raises:
        InputError: the record is damaged; what digests are checked against is never replaced silently.
    """
    file = record_file()
    try:
        data = json.loads(file.read_text())
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {data['schema_version']}, this sd2eval knows {SCHEMA_VERSION}")
        uses = [FirstUse(**entry) for entry in data["digests"]]
        if not all(isinstance(getattr(use, field.name), str) for use in uses for field in fields(FirstUse)):
            raise ValueError("a value is no text")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); set SD2EVAL_CACHE to a folder of yours"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: not a readable record of first-use digests ({error}); "
            "repair it, or move it away to begin a new one"
        ) from error
    return uses


def digest_of(name: str, origin: str) -> FirstUse | None:
    """Return what was recorded for a name from one origin."""
    return next((use for use in recorded() if (use.name, use.origin) == (name, origin)), None)


def remember(name: str, digest: str, origin: str) -> None:
    """Record a digest at first use; at every later one check that it is still the same.

    Args:
        name: of the weights (`checkpoint.name`).
        digest: SHA-256 of what is being loaded.
        origin: repository, address or path it came from.

    Raises:
        InputError: another digest was recorded for this name and origin, or the record is not usable.
    """
    use = digest_of(name, origin)
    if use is None:
        with _locked():
            use = digest_of(name, origin)  # another process may have been first
            if use is None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                _write([*recorded(), FirstUse(name, origin, digest, now)])
                return
    if use.sha256 != digest:
        raise InputError(
            f"'{name}' from {origin} has SHA-256 {digest}, but {use.sha256} was recorded at its first use on "
            f"{use.date[:10]} ({record_file()}); give other weights another checkpoint.name, or forget the "
            f"old ones with `python -m sd2eval models forget {name}`"
        )


def forget(name: str) -> list[FirstUse]:
    """Remove what was recorded for a name, from any origin, and return it."""
    if not any(use.name == name for use in recorded()):
        return []
    with _locked():
        uses = recorded()
        _write([use for use in uses if use.name != name])
    return [use for use in uses if use.name == name]


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process at a time change the record; reading needs no lock, because files are renamed whole."""
    import fcntl

    lock = record_file().with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("a")
    except OSError as error:
        raise InputError(
            f"{record_file()}: cannot be written ({error.strerror}), so no digest can be recorded; "
            "set SD2EVAL_CACHE to a folder of yours"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(uses: list[FirstUse]) -> None:
    file = record_file()
    data = {"schema_version": SCHEMA_VERSION, "digests": [asdict(use) for use in uses]}
    temporary = file.with_name(f".tmp-{file.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w") as stream:
            stream.write(json.dumps(data, indent=1) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error
