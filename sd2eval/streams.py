"""stdout and stderr that never raise: what cannot be written is remembered, and the verb goes on.

A reader that went away (`| head`) wants no more, which is no fault. A full disk and a closed stdout are.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


class Descriptor(io.RawIOBase):
    """A file descriptor that swallows what it cannot write."""

    def __init__(self, number: int, *, closed_before: bool = False) -> None:
        self._number = number
        self._deaf, self._reason = closed_before, "it is closed" if closed_before else ""
        self.lost = ""
        """Why something that somebody wanted was lost; empty if nothing was."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        """Write what can be written; return the size of `data` where nothing can."""
        if not self._deaf:
            try:
                return os.write(self._number, data)
            except OSError as error:
                self._deaf = True
                self._reason = "" if error.errno == errno.EPIPE else error.strerror or type(error).__name__
        self.lost = self._reason
        return memoryview(data).nbytes


def guard() -> Descriptor:
    """Put guarded streams in the place of `sys.stdout` and `sys.stderr`, and return the one below stdout."""
    guarded = [_guarded(stream, number) for number, stream in ((1, sys.stdout), (2, sys.stderr))]
    (sys.stdout, stdout), (sys.stderr, _) = guarded
    return stdout


def _guarded(stream: TextIO | None, number: int) -> tuple[TextIO, Descriptor]:
    if stream is None:
        _occupy(number)
    raw = Descriptor(number, closed_before=stream is None)
    errors = getattr(stream, "errors", None) or "strict"
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        # A character that the encoding lacks is written as its number instead of ending the verb.
        errors="backslashreplace" if errors == "strict" else errors,
        line_buffering=number == 2 or raw.isatty(),
    )
    return text, raw


def _occupy(number: int) -> None:
    """Keep a closed descriptor from being given to the next file that is opened: it would get the output."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)
