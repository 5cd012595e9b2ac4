"""Where a repair moves what is damaged: `RUN/quarantine/<n>/`, with a note. Nothing is ever deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.records import ImageRecord
from sd2eval.seals import to_bytes, unseal
from sd2eval.store import RunFolder, write_bytes

FOLDER = "quarantine"
NOTE = "note.json"


@dataclass
class Note:
    """What lies in one quarantine folder, why, and how far the repair is that put it there."""

    name: str
    """Of the folder: a number, no decision depends on clocks."""
    damaged: dict[str, str]
    """Path to what was wrong with it."""
    moved: list[str]
    """Paths, relative to the run folder, that lie here; some were moved because they belong to others."""
    sample: bool
    """Whether the sweep is to be run: the run was finished before."""
    tables: bool = False
    """Whether only tables and figure are to be written again."""
    shard_size: int | None = None
    """Captions of the shards that lie here."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by name of the run's files written once, as they were before."""
    outcome: list[str] | None = None
    """What came of it; None until the repair has ended."""


def require_folder(store: RunFolder) -> None:
    """Refuse something else of that name, before anything is moved.

    Raises:
        InputError: it is no folder.
    """
    folder = store.path / FOLDER
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise InputError(f"{folder}: is no folder; a repair moves what is damaged there: rename it")


def notes(store: RunFolder) -> list[Note]:
    """Return the notes of all repairs in their order; a folder without a readable one is left alone."""
    found = []
    for file in sorted((store.path / FOLDER).glob(f"*/{NOTE}")):
        try:
            found.append(Note(**json.loads(file.read_bytes())))
        except (ValueError, TypeError):
            continue
    return found


def open_notes(store: RunFolder) -> list[Note]:
    """Return the notes of repairs that have not ended."""
    return [note for note in notes(store) if note.outcome is None]


def write(store: RunFolder, note: Note) -> None:
    """Write a note into its folder."""
    write_bytes(store.path / FOLDER / note.name / NOTE, to_bytes(asdict(note)))


def new_name(store: RunFolder) -> str:
    """Return the name of the next folder: one more than the last."""
    folder = store.path / FOLDER
    taken = (
        [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []
    )
    return f"{max(taken, default=0) + 1:04d}"


def move(store: RunFolder, note: Note) -> None:
    """Move files and folders of a run into its note's folder, where they keep their paths."""
    for path in note.moved:
        source, target = store.path / path, place(store, note, path)
        if not source.exists() and not source.is_symlink():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def place(store: RunFolder, note: Note, path: str) -> Path:
    """Return where a moved path lies."""
    return store.path / FOLDER / note.name / path


def records(store: RunFolder, note: Note) -> Iterator[tuple[str, ImageRecord]]:
    """Yield `<checkpoint>/<block>` and record of every image of the shards that lie in a note's folder."""
    shards = place(store, note, "shards")
    for file in sorted(shards.glob("*/*/manifest.json")):
        try:
            images = [ImageRecord(**image) for image in unseal(file.read_bytes())["images"]]
        except (ValueError, KeyError, TypeError):
            continue  # it was damaged, and says nothing
        yield from ((file.parent.relative_to(shards).as_posix(), image) for image in images)
