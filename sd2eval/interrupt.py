"""Ctrl-C and SIGTERM: the end of a verb in one line; in a sweep, a request to stop at the next safe point."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn

from sd2eval.errors import EXIT_RESUMABLE, Stopped, is_resumable, outlook

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h"


class Interrupt:
    """While open, the first signal is remembered and `check` raises `Stopped`; a second one ends at once."""

    def __init__(self) -> None:
        self.requested = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids it
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def check(self) -> None:
        """Raise `Stopped` if a signal came."""
        if self.requested:
            raise Stopped(f"stopped by {self.requested}")


class Signals:
    """What this process does on a signal, from its first line to its last.

    Where something is resumable, the first one raises KeyboardInterrupt, so that the verb can tidy up.
    Otherwise, during an import, and the second time, the process ends there and then: libraries let the
    exception vanish or come out as another one, imports above all.
    """

    def __init__(self) -> None:
        self.came = ""
        for number in SIGNALS:
            signal.signal(number, self._stop)

    def settle(self) -> None:
        """From now on signals are ignored: the exit code is known, and only the interpreter's end is left."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self.came = bool(self.came), f"stopped by {signal.Signals(number).name}"
        if again or not is_resumable() or _importing(frame):
            _end(f"sd2eval: {self.came}; {outlook()}\n")
        raise KeyboardInterrupt(self.came)


def _importing(frame: FrameType | None) -> bool:
    """Say whether an import is under way."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end(line: str) -> NoReturn:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        for terminal in filter(os.isatty, (1, 2)):
            if "rich.live" in sys.modules:  # a live display hides it
                os.write(terminal, SHOW_CURSOR)
        os.write(2, line.encode())
    os._exit(EXIT_RESUMABLE)
