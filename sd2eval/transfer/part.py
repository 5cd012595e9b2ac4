"""A file in the making: a hidden name beside its target, one writer, its own name when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sd2eval.errors import InputError


class Part:
    """`.NAME.part`, and in `.NAME.part.json` the address it comes from and that version's name there."""

    def __init__(self, target: Path) -> None:
        """Belong to `target`; nothing is touched before `open`."""
        self.target = target
        self.path = target.with_name(f".{target.name.lstrip('.')}.part")
        self._note = self.path.with_name(f"{self.path.name}.json")
        self._file: IO[bytes]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the file for this process; afterwards what came is kept, unless it is nothing.

        Raises:
            InputError: the folder cannot be written, or another process holds the file.
        """
        with writing(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._hold()
        with self._file:
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    if self._is_mine(self._file) and self.length == 0:
                        self.delete()

    @property
    def length(self) -> int:
        """Bytes so far."""
        return os.fstat(self._file.fileno()).st_size

    def version(self, url: str) -> str:
        """Return what `url` called the version that these bytes begin, or nothing."""
        try:
            note = json.loads(self._note.read_text())
            return str(note["version"]) if note["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def restart(self, url: str, version: str) -> None:
        """Forget the bytes, and note where the next ones come from."""
        with writing(self.target):
            self._file.truncate(0)
            self._note.write_text(json.dumps({"url": url, "version": version}))

    def write(self, block: bytes) -> None:
        """Append `block`.

        Raises:
            InputError: the disk is full, or the file may not grow.
        """
        with writing(self.target):
            self._file.write(block)

    def publish(self) -> None:
        """Give the file its name, after its bytes have reached the disk."""
        with writing(self.target):
            os.fsync(self._file.fileno())
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove what came; nothing can be written any more."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _hold(self) -> IO[bytes]:
        while True:
            file = self.path.open("ab", buffering=0)
            try:
                _lock(file.fileno(), self.target)
            except InputError:
                file.close()
                raise
            if self._is_mine(file):
                return file
            file.close()  # its former holder finished or deleted it just before

    def _is_mine(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into an InputError that names `path` and the reason."""
    try:
        yield
    except OSError as error:
        other = error.filename and os.fspath(error.filename) != os.fspath(path)
        reason = f"{error.strerror or error}{f': {error.filename}' if other else ''}"
        raise InputError(f"{path}: cannot be written ({reason})") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and hold it for this process until it ends, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made or read ({error.strerror or error})") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, target: Path) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{target}: another process is writing it; wait for that one to end") from None
    except OSError:  # some network disks know no locks; size and digest still decide
        return
