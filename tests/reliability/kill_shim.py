"""Kill this process at its k-th change of a folder: SIGKILL before a system call or halfway through a write.

Every way of changing files that the package has goes through one of the functions that are replaced here.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHANGES = ("mkdir", "rmdir", "rename", "replace", "unlink", "remove", "link", "symlink", "truncate")
"""Functions of `os` whose first argument is a path."""
WRITING = set("wax+")


class Points:
    """Counts what would change a folder, and ends the process at one of these points."""

    def __init__(self, folder: Path, at: int | None = None) -> None:
        """Count in `folder`; kill before the change number `at`, from 0, if given."""
        self.folder, self.at = f"{folder}", at
        self.names: list[str] = []
        """What was done at each point, such as `rename run.json`."""
        self._next = (
            itertools.count()
        )  # one step under the interpreter's lock: PNG files are written by threads

    def here(self, what: str, path: Any) -> bool:
        """Pass one point that changes the file and say whether it is this one; a kill never returns."""
        number = next(self._next)
        self.names.append(f"{what} {os.path.relpath(os.fspath(path), self.folder)}")
        if number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return number == self.at

    def is_ours(self, path: Any) -> bool:
        """Say whether a path lies in the folder."""
        if isinstance(path, int):
            return False
        return str(Path(os.fsdecode(path)).absolute()).startswith(self.folder)


class _Raw(io.FileIO):
    """The lowest layer of an open file: each `write` is one system call."""

    points: Points

    def write(self, data: Any, /) -> int:
        self.points.here("write", self.name)
        view = memoryview(data).cast("B")
        half = super().write(view[: len(view) // 2]) if len(view) > 1 else 0
        self.points.here("halfway", self.name)
        return half + super().write(view[half:])

    def truncate(self, size: int | None = None, /) -> int:
        self.points.here("truncate", self.name)
        return super().truncate(size)


@contextlib.contextmanager
def watching(points: Points) -> Iterator[None]:
    """Let every change of the points' folder in this process pass them."""
    before = [(module, name, getattr(module, name)) for module, name in _places()]
    opened: dict[int, str] = {}
    for module, name, function in before:
        setattr(module, name, _watched(points, name, function, opened))
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def _places() -> Iterator[tuple[Any, str]]:
    yield from ((os, name) for name in (*CHANGES, "open", "write", "fsync", "close"))
    yield from ((io, "open"), (builtins, "open"))


def _watched(points: Points, name: str, before: Any, opened: dict[int, str]) -> Callable[..., Any]:
    if before is io.open or before is builtins.open:
        return functools.partial(_open_file, points, before)
    made = {"open": _open, "write": _write, "fsync": _fsync, "close": _close}.get(name)
    return functools.partial(made or functools.partial(_change, name), points, before, opened)


def _change(name: str, points: Points, before: Any, opened: Any, path: Any, *more: Any, **named: Any) -> Any:
    if named.get("dir_fd") is not None or points.is_ours(path):  # relative ones are `rmtree`'s
        points.here(name, path)
    return before(path, *more, **named)


def _open(
    points: Points, before: Any, opened: dict[int, str], path: Any, flags: int, *more: Any, **named: Any
) -> int:
    writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) and points.is_ours(path)
    if writes:
        points.here("open", path)
    descriptor: int = before(path, flags, *more, **named)
    if writes:
        opened[descriptor] = os.fspath(path)
    return descriptor


def _write(points: Points, before: Any, opened: dict[int, str], descriptor: int, data: Any, /) -> int:
    if descriptor not in opened:
        return int(before(descriptor, data))
    points.here("write", opened[descriptor])
    if points.at == len(points.names) and len(data) > 1:  # only then: one call must stay one call
        before(descriptor, bytes(data)[: len(data) // 2])
    points.here("halfway", opened[descriptor])
    return int(before(descriptor, data))


def _fsync(points: Points, before: Any, opened: dict[int, str], descriptor: int) -> None:
    points.here("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())
    before(descriptor)


def _close(points: Points, before: Any, opened: dict[int, str], descriptor: int) -> None:
    opened.pop(descriptor, None)
    before(descriptor)


def _open_file(
    points: Points,
    before: Any,
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **rare: Any,
) -> Any:
    if not (WRITING & set(mode) and points.is_ours(file)):
        return before(file, mode, buffering, encoding, errors, newline, **rare)
    points.here("open", file)
    raw = _Raw(file, "".join(letter for letter in mode if letter not in "bt"))
    raw.points = points
    buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding or "utf-8", errors, newline)
