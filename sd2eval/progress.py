"""The display of a running sweep: live on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

WINDOW_UPDATES = 8
WINDOW_SECONDS = 30.0
"""The rate is that of the last 30 seconds, or of the last 8 updates where those took longer."""
PLAIN_SECONDS = 15.0


class Rate:
    """Images per second of the recent past; a pause makes it fall instead of freezing it."""

    def __init__(self, now: float, done: int) -> None:
        """Start at `now` seconds with `done` images that do not count."""
        self._points = deque([(now, done)])

    def add(self, now: float, done: int) -> None:
        """Record that `done` images are finished at `now`."""
        self._points.append((now, done))
        while len(self._points) > WINDOW_UPDATES + 1 and now - self._points[1][0] >= WINDOW_SECONDS:
            self._points.popleft()

    def restart(self, now: float) -> None:
        """Let the window begin at `now` if nothing was finished yet: loading is not sampling."""
        if len(self._points) == 1:
            self._points[0] = (now, self._points[0][1])

    def at(self, now: float) -> float:
        """Return images per second, 0 while unknown.

        Time since the last update counts from the moment the wait is longer than the mean interval.
        """
        (begin, before), (end, after) = self._points[0], self._points[-1]
        intervals = len(self._points) - 1
        elapsed = max(end - begin, (now - begin) * intervals / (intervals + 1))
        return (after - before) / elapsed if elapsed > 0 else 0.0


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Fall silent; rich would end the program and send its stdout nowhere."""
        self.quiet = True


class Progress:
    """What is being done, how fast, until when, and the energy so far; a context manager.

    A terminal gets a live display of two lines. A pipe, a file or a dumb terminal gets a line at the start,
    at most one every 15 seconds when something is finished, and one at the end. With `quiet` nothing is
    printed at all.
    """

    def __init__(
        self,
        total_images: int,
        *,
        done_images: int = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Expect `total_images`, of which an earlier run finished `done_images`.

        Prints to `stream` or else stderr, since stdout belongs to the results.
        """
        self._total, self._done, self._before = total_images, done_images, done_images
        self._quiet, self._clock = quiet, clock
        self._console = _Console(file=stream or sys.stderr, highlight=False, soft_wrap=False)
        self._live: Live | None = None
        self._begin = self._printed = clock()
        self._rate = Rate(self._begin, done_images)
        self._what = self._status = self._energy = ""
        self._captions, self._captions_total = 0, 0
        self._spent: dict[int, tuple[float, float, str]] = {}

    def checkpoint(self, name: str, captions: int, done: int = 0) -> None:
        """Say that `name` is being worked on: `captions` of it, of which `done` are finished."""
        self._what, self._status = name, ""
        self._captions, self._captions_total = done, captions
        self._rate.restart(self._clock())

    def status(self, text: str) -> None:
        """Say what is being done besides sampling, such as `loading`; empty when it is over."""
        self._status = text
        self._rate.restart(self._clock())

    def advance(self, images: int, captions: int = 0) -> None:
        """Count finished images, and the captions whose images are then all finished."""
        self._done += images
        self._captions += captions
        now = self._clock()
        self._rate.add(now, self._done)
        if self._live is None and now - self._printed >= PLAIN_SECONDS:
            self._line(self._summary())
            self._printed = now

    def more(self, images: int) -> None:
        """Expect more images than was said."""
        self._total += images

    def energy(self, kwh: float, kg_co2: float, method: str, source: int = 0) -> None:
        """Show the energy so far, that of all sources added; `method` is `measured` or `estimated`."""
        self._spent[source] = (kwh, kg_co2, method)
        energies, masses, methods = zip(*self._spent.values(), strict=True)
        kwh, kg_co2 = sum(energies), sum(masses)
        method = "measured" if {*methods} == {"measured"} else "estimated"
        self._energy = f"{format_energy(kwh)}, {format_co2(kg_co2)} ({method})"

    def print(self, message: str) -> None:
        """Print a line of its own, above the live display."""
        self._line(message)

    def __enter__(self) -> Self:
        self._begin = self._printed = self._clock()
        self._rate.restart(self._begin)
        if self._quiet:
            return self
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=2,
                transient=True,
                # What others print must appear above the display, but stay in its own stream.
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        else:
            already = f", {self._done} already done" if self._done else ""
            self._line(f"{self._total} images to make{already}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError, ValueError):
                live.stop()
        self._line(self._last_line(finished=kind is None))

    def _work(self) -> str:
        captions = f"{self._captions}/{self._captions_total} captions" if self._captions_total else ""
        return "  ".join(filter(None, (self._what, captions, self._status)))

    def _counts(self, now: float) -> str:
        percent = 100 * self._done // max(self._total, 1)
        rate = self._rate.at(now)
        eta = format_seconds((self._total - self._done) / rate) if rate > 0 else "?"
        return f"{self._done}/{self._total} images  {percent}%  {format_number(rate)}/s  ETA {eta}"

    def _summary(self) -> str:
        return "  ".join(filter(None, (self._counts(self._clock()), self._work(), self._energy)))

    def _last_line(self, finished: bool) -> str:
        seconds = self._clock() - self._begin
        new = self._done - self._before
        mean = f", {format_number(new / seconds)}/s" if new and seconds > 0 else ""
        energy = f", {self._energy}" if self._energy else ""
        head = f"{'done' if finished else 'stopped'}: {self._done}/{self._total} images"
        return f"{head} ({new} in {format_seconds(seconds)}{mean}){energy}"

    def _render(self) -> RenderableType:
        now = self._clock()
        top = Table.grid(expand=True, padding=(0, 2, 0, 0))
        top.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        top.add_column(no_wrap=True, justify="right")
        top.add_row(Text(self._work(), style="bold"), Text(self._energy, style="green"))
        bottom = Table.grid(expand=True, padding=(0, 2, 0, 0))
        bottom.add_column(ratio=1)
        bottom.add_column(no_wrap=True, justify="right")
        bottom.add_row(ProgressBar(total=max(self._total, 1), completed=self._done), self._counts(now))
        # Room for the terminal's echo of ^C, which would wrap and leave a line of the display behind.
        return Constrain(Group(top, bottom), self._console.width - 3)

    def _line(self, text: str) -> None:
        if self._quiet:
            return
        # A reader that went away (`| head`) must not stop a run.
        with contextlib.suppress(OSError, ValueError):
            self._console.print(Text(text), soft_wrap=True)
            self._console.file.flush()


def format_seconds(seconds: float) -> str:
    """Return `9 s`, `4 min 05 s`, `3 h 07 min` or `2 d 04 h`."""
    whole = round(seconds)
    for size, name, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part_size:02d} {part}"
    return f"{whole} s"


def format_number(value: float) -> str:
    """Return three significant digits, never an exponent, and 0 for nothing else than 0."""
    return f"{value:.0f}" if value >= 100 else f"{Decimal(f'{value:.3g}'):f}"


def format_energy(kwh: float) -> str:
    """Return kWh from 0.1 on, Wh below."""
    return f"{format_number(kwh)} kWh" if kwh >= 0.1 else f"{format_number(kwh * 1000)} Wh"


def format_co2(kg: float) -> str:
    """Return kg from 1 on, g below."""
    return f"{format_number(kg)} kg CO2" if kg >= 1 else f"{format_number(kg * 1000)} g CO2"
