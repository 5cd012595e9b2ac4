"""One writer per folder: a lock that ends with its process, however that ends, and says who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from sd2eval.errors import NO_ROOM, InputError, room
from sd2eval.mounts import mount, no_locks

FILE = ".lock"
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


Writer = Literal["sweep", "probe", "report", "repair"]
WHO: dict[str, str] = {name: f"a {name}" for name in get_args(Writer)}
OF_BATCHES = (
    "wait until it ends, end it (kill -TERM on that host: it stops after its batch), or give another out=DIR"
)
WHAT_TO_DO = {
    "sweep": OF_BATCHES,
    "probe": OF_BATCHES,
    "report": "run the same command again when it has ended",
    "repair": "wait until it ends, or end it (kill -TERM on that host); the same repair goes on later",
}


class Busy(InputError):  # noqa: N818 - a state, not an error
    """Somebody else is writing into the folder."""

    def __init__(self, path: Path, writer: str, holder: str) -> None:
        """Take the folder, which verb it is, empty where that is unknown, and whose in words."""
        self.state = f"{path}: {WHO.get(writer, 'somebody else')} is writing here ({holder})"
        super().__init__(f"{self.state}; {WHAT_TO_DO.get(writer, 'wait until that ends')}")


class NoLocks(InputError):  # noqa: N818 - a state, not an error
    """Nobody can lock there: the file system has no locks."""


@contextmanager
def held(path: Path, writer: Writer = "sweep") -> Iterator[None]:
    """Hold a folder for one writer; it is made if need be.

    Raises:
        Busy: somebody else is writing there (names the verb, host, process and for how long).
        NoLocks: the file system has none.
        InputError: nobody can write there.
        Stopped: the disk is full.
    """
    with room():
        descriptor = _opened(path)
    try:
        with room():
            _lock(path, descriptor, writer)
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


def _lock(path: Path, descriptor: int, writer: Writer) -> None:
    """Take the lock and write down who has it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(path, *_holder(descriptor)) from error
    except OSError as error:
        raise NoLocks("{}: {}".format(*no_locks(mount(path)[0], path, error))) from error
    os.ftruncate(descriptor, 0)
    record = {"writer": writer, "host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    os.write(descriptor, json.dumps(record).encode())


def _holder(descriptor: int) -> tuple[str, str]:
    """Return which verb holds the lock and whose it is, as far as that is written down."""
    text = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
    try:
        found = json.loads(text)
        writer, host, process, since = found["writer"], found["host"], found["process"], float(found["since"])
    except (ValueError, KeyError, TypeError):
        return "", text or "who has just begun"
    begun, age = time.strftime("%F %T", time.localtime(since)), format_age(time.time() - since)
    return str(writer), f"host {host}, process {process}, for {age}, since {begun}"


def format_age(seconds: float) -> str:
    """Return a duration in its largest unit, such as `3 minutes`; clocks may differ or be set back."""
    for size, unit in UNITS:
        count = int(seconds // size)
        if count > 0:
            return f"{count} {unit}" + "s" * (count > 1)
    return "less than a second" if seconds >= 0 else "an unknown time (the clocks differ)"
