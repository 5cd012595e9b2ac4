"""Ray, the worker's side: an actor, which works for one driver until that ends it, or ends."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch

import sd2eval
from sd2eval.engines.base import Assignment, check_token, enlist
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.store import WRITER
from sd2eval.worker import DeviceLost, ShardFailed, Task, Unloadable, Worker

LOOK_SECONDS = 0.5
"""How often a worker looks for the run folder."""
SIGHT_SECONDS = 10.0
"""A network file system may show a new file to another node only after some seconds."""
TOKEN_SECONDS = 5.0
"""How often a worker looks whether its driver still has the run."""

Kind: TypeAlias = Literal["ready", "done", "failed", "unloadable", "refused", "stopped"]


class Answer(NamedTuple):
    """What an actor says after each call."""

    kind: Kind
    text: str = ""
    images: int = 0
    captions: int = 0
    lines: tuple[str, ...] = ()
    """For the user."""


class Actor:
    """A worker in the process of an actor; Ray calls one method at a time."""

    def __init__(self) -> None:
        self._counts = _Counts()
        self._worker: Worker | None = None

    def place(self) -> tuple[str, str]:
        """Return the name of the machine, and the version of this package there."""
        return socket.gethostname(), sd2eval.__version__

    def enlist(self, assignment: Assignment, device: str, threads: int, share: float) -> Answer:
        """Load the networks of the metrics."""
        if device == "cpu":
            torch.set_num_threads(threads)
        try:
            see_run(assignment.path, assignment.token)
            watch = _Watch(assignment)
            self._worker = enlist(assignment, torch.device(device), self._counts, watch, share)
        except InputError as error:
            return self._answer("refused", f"node {socket.gethostname()}: {error}")
        except Stopped as stop:
            return self._answer("stopped", str(stop))
        return self._answer("ready")

    def run(self, task: Task, share: float) -> Answer:
        """Make a shard."""
        assert self._worker is not None
        self._worker.session.meter.share = share
        try:
            self._worker.run(task)
        except DeviceLost:
            raise  # its driver ends this process and starts another
        except ShardFailed as error:
            kind: Kind = "unloadable" if isinstance(error, Unloadable) else "failed"
            return self._answer(kind, str(error))
        except InputError as error:
            return self._answer("refused", f"node {socket.gethostname()}: {error}")
        except Stopped as stop:
            return self._answer("stopped", str(stop))
        return self._answer("done")

    def _answer(self, kind: Kind, text: str = "") -> Answer:
        return Answer(kind, text, *self._counts.take())


def see_run(path: Path, token: str) -> None:
    """Return when this machine sees the driver's run folder.

    Raises:
        InputError: it has none, or another one, at that path.
    """
    deadline = time.monotonic() + SIGHT_SECONDS
    while True:
        try:
            return check_token(path, token)
        except Stopped as stop:
            if time.monotonic() > deadline:
                raise InputError(
                    f"the run folder {path} is not the driver's as seen from here "
                    f"({WRITER}: {stop}); put out= on a file system that all nodes share"
                ) from stop
        time.sleep(LOOK_SECONDS)


class _Counts:
    """A display that adds up what a shard made; the driver shows it when the shard is there."""

    def __init__(self) -> None:
        self.images = self.captions = 0
        self._lines: list[str] = []

    def advance(self, images: int, captions: int = 0) -> None:
        """Add."""
        self.images += images
        self.captions += captions

    def status(self, text: str) -> None:
        """Keep quiet: several workers do several things."""

    def energy(self, kwh: float, kg_co2: float, method: str) -> None:
        """Keep quiet: the driver cannot add up what overlaps."""

    def print(self, message: str) -> None:
        """Keep a line for the driver."""
        self._lines.append(message)

    def take(self) -> tuple[int, int, tuple[str, ...]]:
        """Return the sums and the lines, and begin again."""
        taken = self.images, self.captions, tuple(self._lines)
        self.images = self.captions = 0
        self._lines.clear()
        return taken


class _Watch(Interrupt):
    """Asks now and then whether the driver still has the run."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__()
        self._assignment, self._looked = assignment, time.monotonic()

    def check(self) -> None:
        """Raise `Stopped` if another driver has taken over."""
        if time.monotonic() - self._looked > TOKEN_SECONDS:
            check_token(self._assignment.path, self._assignment.token)
            self._looked = time.monotonic()
