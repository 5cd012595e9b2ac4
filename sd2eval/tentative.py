"""A run folder that goes away again when the run is refused before its first shard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.events import FILE as EVENTS
from sd2eval.store import WRITER, RunFolder


@contextmanager
def held(store: RunFolder) -> Iterator[None]:
    """Hold the folder for one writer; if it is new and the run is refused before a shard, leave nothing.

    Raises:
        InputError: see `RunFolder.lock`.
    """
    new = list(_absent(store.path))
    with store.lock():
        try:
            yield
        except InputError:
            if new and not store.begun:
                _withdraw(store, new)
            raise


def _absent(path: Path) -> Iterator[Path]:
    """Yield the folders that are still to be made, innermost first."""
    while not path.exists():
        yield path
        path = path.parent


def _withdraw(store: RunFolder, folders: Sequence[Path]) -> None:
    store.restart()
    for name in (".lock", WRITER, EVENTS):
        (store.path / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what holds something else stays
        for folder in folders:
            folder.rmdir()
