"""One writer per folder: a lock that ends with its process, however that ends, and says who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sd2eval.errors import InputError

FILE = ".lock"
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a folder for one writer; it is made if need be.

    Raises:
        InputError: somebody else is writing there (names host, process and for how long), or nobody can.
    """
    import fcntl

    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / FILE).touch()
    except OSError as error:
        raise InputError(f"out={path}: cannot be written ({error.strerror})") from error
    with (path / FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{path}: another sweep is writing here ({_holder(file)}); wait until it ends, end it "
                "(kill -TERM on that host: it stops after its batch), or give another out=DIR"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}))
        file.flush()
        yield


def _holder(file: IO[str]) -> str:
    """Return who holds the lock, as far as they have written it down."""
    file.seek(0)
    text = file.read().strip()
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
