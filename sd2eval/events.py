"""The log of a run folder: one JSON line per event, beside what is printed for people.

Each line is appended by one system call, so processes can share the file; the log is never read by a run, is
in no digest, and is never why a run ends: what cannot be written is counted.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "events.jsonl"


class EventLog:
    """Appends the events of one process."""

    def __init__(
        self, path: Path, session: str, on_lost: Callable[[str], None] = lambda reason: None
    ) -> None:
        """Append to `path` in the name of a session.

        Args:
            path: the file; it is made with the first event, its folder is not.
            session: name of the process's record in `sessions/`.
            on_lost: told the reason when an event could not be written for the first time.
        """
        self.lost = 0
        """Events that could not be written."""
        self._path, self._on_lost, self._torn = path, on_lost, True
        self._who = {"session": session, "host": socket.gethostname()}

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with its time.

        Args:
            event: its name, such as `shard_published`.
            fields: what belongs to it; JSON, or else written as text.
        """
        clock = {
            "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "monotonic": round(time.monotonic(), 6),
        }
        before = {"lost_before": self.lost} if self.lost else {}
        record = clock | self._who | {"pid": os.getpid(), "event": event} | before | fields
        line = json.dumps(record, default=str).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                self._on_lost(error.strerror or str(error))

    def _append(self, line: bytes) -> None:
        """Append a line, on a line of its own where somebody could not finish the last one."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if self._torn and _ends_torn(descriptor):
                line = b"\n" + line
            self._torn = os.write(descriptor, line) < len(line)
            if self._torn:
                raise OSError(0, "only a part of the line was written")
        finally:
            os.close(descriptor)


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the events of a run folder in the order of the file, and how many lines cannot be read."""
    try:
        lines = (path / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return [], 0
    found = list(_records(lines))
    return found, sum(map(bool, lines)) - len(found)


def _records(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "event" in record:
            yield record


def _ends_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
