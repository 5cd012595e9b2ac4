"""One writer per folder: a lock that ends with its process, however that ends, and says who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sd2eval.errors import NO_ROOM, InputError, room
from sd2eval.mounts import mount, no_locks

FILE = ".lock"
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Busy(InputError):  # noqa: N818 - a state, not an error
    """Somebody else is writing into the folder."""

    def __init__(self, path: Path, holder: str) -> None:
        """Take the folder, and who it is in words."""
        self.path, self.holder = path, holder
        super().__init__(
            f"{path}: another sweep is writing here ({holder}); wait until it ends, end it "
            "(kill -TERM on that host: it stops after its batch), or give another out=DIR"
        )


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a folder for one writer; it is made if need be.

    Raises:
        Busy: somebody else is writing there (names host, process and for how long).
        InputError: nobody can.
        Stopped: the disk is full.
    """
    with room():
        descriptor = _opened(path)
    try:
        with room():
            _lock(path, descriptor)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return os.open(path / FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _lock(path: Path, descriptor: int) -> None:
    """Take the lock and write down who has it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(path, _holder(descriptor)) from error
    except OSError as error:
        raise InputError("{}: {}".format(*no_locks(mount(path)[0], path, error))) from error
    os.ftruncate(descriptor, 0)
    record = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    os.write(descriptor, json.dumps(record).encode())


def _holder(descriptor: int) -> str:
    """Return who holds the lock, as far as they have written it down."""
    text = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
    try:
        found = json.loads(text)
        host, process, since = found["host"], found["process"], float(found["since"])
    except (ValueError, KeyError, TypeError):
        return text or "which has just begun"
    begun = time.strftime("%F %T", time.localtime(since))
    return f"host {host}, process {process}, for {format_age(time.time() - since)}, since {begun}"


def format_age(seconds: float) -> str:
    """Return a duration in its largest unit, such as `3 minutes`; clocks may differ or be set back."""
    for size, unit in UNITS:
        count = int(seconds // size)
        if count > 0:
            return f"{count} {unit}" + "s" * (count > 1)
    return "less than a second" if seconds >= 0 else "an unknown time (the clocks differ)"
