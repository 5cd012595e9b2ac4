"""Which published weights are on this machine, where, and which of them were seen to be right."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from sd2eval.cache import cache_folder
from sd2eval.weights import hub
from sd2eval.weights.first_use import FirstUse, digest_of
from sd2eval.weights.published import Published

MISSING, UNVERIFIED, VERIFIED, WRONG = "missing", "not verified", "verified", "wrong"


@dataclass(frozen=True, slots=True)
class Holding:
    """What this machine has of one entry of the table."""

    entry: Published
    path: Path | None
    first_use: FirstUse | None
    """What was recorded, where no digest is published."""
    state: str
    """`missing`, `not verified` (since it last changed), `verified` or `wrong`."""

    @property
    def expected(self) -> str | None:
        """The SHA-256 that it must have: published, or recorded at first use."""
        return expected(self.entry, self.first_use)


def locate(entry: Published) -> Path | None:
    """Return where an entry's file is on this machine; asks no network.

    Looks in the cache of huggingface_hub (also under the former repository) or of torch.hub.
    """
    if entry.url:
        path = torch_hub_folder() / entry.file
        return path if path.is_file() else None
    repositories = [name for name in (entry.repository, entry.former_repository) if name]
    found = (hub.in_cache(repository, entry.file) for repository in repositories)
    return next((path for path in found if path), None)


def torch_hub_folder() -> Path:
    """Return where torch.hub keeps weights, and torch-fidelity and torchvision look for theirs."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.environ.get("TORCH_HOME", default)).expanduser() / "hub" / "checkpoints"


def holding(entry: Published) -> Holding:
    """Return what this machine has of an entry, without hashing anything."""
    path = locate(entry)
    first_use = None if entry.sha256 else digest_of(entry.name, entry.origin)
    state = MISSING
    if path is not None:
        found, wanted = noted_digest(path), expected(entry, first_use)
        state = UNVERIFIED
        if found and wanted:
            state = VERIFIED if found == wanted else WRONG
    return Holding(entry, path, first_use, state)


def expected(entry: Published, first_use: FirstUse | None) -> str | None:
    """Return the SHA-256 that an entry's file must have, or None where none is known yet."""
    return entry.sha256 or (first_use.sha256 if first_use else None)


def noted_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file that was hashed before and has not changed since, or None."""
    note = _notes().get(str(path.resolve()))
    return str(note["sha256"]) if note and _stamp(path).items() <= note.items() else None


def note_digest(path: Path, sha256: str) -> None:
    """Note what a file's SHA-256 is, so that a list of weights need not hash gigabytes again."""
    notes = _notes() | {str(path.resolve()): _stamp(path) | {"sha256": sha256}}
    kept = {name: note for name, note in notes.items() if Path(name).exists()}
    file = _notes_file()
    temporary = file.with_name(f".tmp-{file.name}-{uuid.uuid4().hex[:8]}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(kept, indent=1) + "\n")
        temporary.replace(file)
    except OSError:
        return  # the list then says `not verified`


def _notes_file() -> Path:
    return cache_folder() / "hashed_files.json"


def _notes() -> dict[str, dict[str, str | int]]:
    try:
        notes = json.loads(_notes_file().read_text())
        return {name: dict(note) for name, note in notes.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # a cache: what is not there is hashed again


def _stamp(path: Path) -> dict[str, str | int]:
    status = path.stat()
    return {"size": status.st_size, "modified_ns": status.st_mtime_ns}
