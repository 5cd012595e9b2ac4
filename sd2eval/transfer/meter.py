"""How far one long step is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

PLAIN_SECONDS = 15.0
BYTES = "bytes"


class Meter:
    """Counts bytes or things of one step on stderr; a context manager. With `show` off it is silent."""

    def __init__(self, label: str, total: int | None = None, *, unit: str = BYTES, show: bool = True) -> None:
        """Count up to `total` (None: unknown) of `unit`, which is `bytes` or a plural such as `images`."""
        self.label, self.total, self.unit, self.done = label, total, unit, 0
        self._show = show
        self._printed = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            console = Console(stderr=True, highlight=False)
            self._bar = Progress(*_columns(self.unit), console=console, transient=True)
            self._bar.add_task(self.label, total=self.total)
            self._bar.start()
        elif self.total is not None:
            self.say(f"{self.label}: {self._count(self.total)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(OSError, ValueError):
                bar.stop()
        if kind is not None and 0 < self.done != self.total:
            self.say(f"{self.label}: stopped at {self._far()}")

    def to(self, done: int, total: int | None = None) -> None:
        """Set how much is done, and the total where it has become known."""
        self.done = done
        self.total = self.total if total is None else total
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=self.total)
        elif now - self._printed >= PLAIN_SECONDS:
            self.say(f"{self.label}: {self._far()}")
            self._printed = now

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if not self._show:
            return
        # A reader that went away must not stop the work.
        with contextlib.suppress(OSError, ValueError):
            if self._bar is not None:
                self._bar.console.print(text, markup=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)

    def _far(self) -> str:
        if not self.total:
            return self._count(self.done)
        done = self._count(self.done) if self.unit == BYTES else f"{self.done:,}"
        return f"{done} of {self._count(self.total)} ({100 * self.done // self.total}%)"

    def _count(self, number: int) -> str:
        return format_bytes(number) if self.unit == BYTES else f"{number:,} {self.unit}"


def format_bytes(count: int) -> str:
    """Return `12 B`, `3.4 kB`, `815.6 MB`, `1.1 GB`: powers of 1000."""
    value, name = float(count), "B"
    for name in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.95 or name == "TB":
            break
        value /= 1000
    return f"{count} B" if name == "B" else f"{value:.1f} {name}"


def _columns(unit: str) -> list[ProgressColumn]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    text, bar, rest = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    if unit == BYTES:
        return [text, bar, DownloadColumn(), TransferSpeedColumn(), rest]
    return [text, bar, MofNCompleteColumn(), TextColumn(unit), rest]
