"""What engines share: what a worker is told of a run, how often a shard is tried, and the fence.

A driver holds the run folder's lock and writes a token into it. A worker publishes only while the token is
its driver's: one whose driver lost the folder to another stops instead. What it may still publish in the
moment between looking and renaming does no harm: a shard is never replaced.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from sd2eval.checkpoints import Weights
from sd2eval.config import CheckpointConfig, SweepConfig
from sd2eval.dataset import Dataset
from sd2eval.devices import keep_freed_memory, resolve_device, set_precision
from sd2eval.energy import EnergyMeter
from sd2eval.errors import InputError, Stopped, room
from sd2eval.interrupt import Interrupt
from sd2eval.networks import load_networks
from sd2eval.progress import Progress
from sd2eval.session import Display, Session
from sd2eval.store import WRITER, RunFolder, write_bytes
from sd2eval.worker import Task, Worker, on_device


@dataclass(frozen=True, slots=True)
class Failure:
    """A shard that was given up."""

    task: Task
    reason: str
    attempts: int


class Engine(Protocol):
    """Makes shards somewhere."""

    parallel: bool
    """Whether it gains from having the tasks of all checkpoints at once."""

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """Make all shards, or give up those that fail again and again; return these.

        Raises:
            InputError: no shard can be made: a checkpoint does not load, a node has other weights.
            Stopped: a signal came; what is published stays.
        """


@dataclass(frozen=True)
class Assignment:
    """What a worker in another process, or on another machine, is told of a run; can be pickled."""

    config: SweepConfig
    definitions: dict[str, CheckpointConfig]
    weights: dict[str, Weights]
    dataset: Dataset
    path: Path
    """The run folder, seen alike by all."""
    device: torch.device
    """The driver's."""
    dtype: str
    digests: dict[str, str]
    """Of the networks of the metrics, as the driver has them."""
    token: str


def take(store: RunFolder) -> str:
    """Become the folder's one driver and return the token of its workers; the caller holds the lock."""
    token = uuid.uuid4().hex
    write_bytes(store.path / WRITER, token.encode())
    return token


def check_token(path: Path, token: str) -> None:
    """Raise `Stopped` unless the run folder's driver is still the one that gave the token."""
    try:
        current = (path / WRITER).read_text()
    except OSError as error:
        raise Stopped(f"the run folder {path} is gone ({error.strerror})") from error
    if current != token:
        raise Stopped(f"another process has taken over {path}")


def enlist(
    assignment: Assignment, device: torch.device, display: Display, interrupt: Interrupt, share: float
) -> Worker:
    """Return a worker in this process for a driver in another one.

    Args:
        assignment: from the driver.
        device: to work on.
        display: where progress goes.
        interrupt: asked between steps.
        share: of this machine's energy that is this worker's, 0..1.

    Raises:
        InputError: the networks here are not the driver's.
        DeviceLost: the device does not let them load.
        MemoryError: they do not fit into it now.
        Stopped: the disk is full.
    """
    set_precision(assignment.dtype)
    if device.type == "cpu":
        keep_freed_memory()
    config, store = assignment.config, RunFolder(assignment.path)
    session = Session(EnergyMeter(config.energy.country, share=share), store, display, interrupt)
    session.event("worker_started", device=str(device), share=share)
    definitions = list(assignment.definitions.values())
    with room(), on_device(session, device), session.spend("setup"):
        networks = load_networks(config.protocol, definitions, device)
    for name, digest in networks.digests.items():
        if assignment.digests.get(name) != digest:
            raise InputError(f"{name}: this worker has other weights than its driver; fetch them anew there")
    return Worker(
        config=config,
        definitions=assignment.definitions,
        weights=assignment.weights,
        dataset=assignment.dataset,
        networks=networks,
        device=device,
        dtype=assignment.dtype,
        session=session,
        fence=lambda: check_token(assignment.path, assignment.token),
    )


def choose(queue: Sequence[Task], unfit: Container[str], others: Iterable[Container[str]]) -> Task | None:
    """Return what a worker does next; None: others can do what is left, and it cannot.

    Args:
        queue: what is to do, in order.
        unfit: the checkpoints that do not load in this worker.
        others: those that do not in each of all workers: another's device may have more memory.
    """
    fit = next((task for task in queue if task.checkpoint not in unfit), None)
    if fit is not None:
        return fit
    hopeless = (task for task in queue if all(task.checkpoint in other for other in others))
    return next(hopeless, None)


def last_line(lines: Sequence[str]) -> str:
    """Return the last that a process printed: of a traceback, the error."""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def announce(progress: Progress, tasks: Sequence[Task], workers: int) -> None:
    """Let the display say what several workers are about to make, which may be of several checkpoints."""
    names = dict.fromkeys(task.checkpoint for task in tasks)
    what = next(iter(names)) if len(names) == 1 else f"{len(names)} checkpoints"
    by = f", {workers} workers" if workers > 1 else ""
    progress.checkpoint(what + by, sum(len(task.block) for task in tasks))


def device_of(device: str, index: int) -> torch.device:
    """Return the device of the worker with a number, from the setting: GPUs go round."""
    if device == "auto":
        device = resolve_device(device).type
    if device == "cuda":
        device = f"cuda:{index % torch.cuda.device_count()}"
    return torch.device(device)


@dataclass
class Attempts:
    """Counts how often each shard failed."""

    most: int
    say: Callable[[str], None]
    log: Callable[..., None] = lambda event, **fields: None
    """Takes events, as `Session.event`."""

    def __post_init__(self) -> None:
        self._reasons: dict[Task, list[str]] = {}

    def failed(self, task: Task, reason: str) -> Failure | None:
        """Note a failure; return it as final when it was one too many."""
        reasons = self._reasons.setdefault(task, [])
        reasons.append(reason)
        self.log("shard_failed", shard=task.key, tries=len(reasons), most=self.most, reason=reason)
        if len(reasons) < self.most:
            self.say(f"{reason}; tried again ({len(reasons)} of {self.most})")
            return None
        self.say(f"{task.key}: given up after {len(reasons)} tries")
        return Failure(task, reason, len(reasons))

    def recall(self, task: Task, reasons: Sequence[str]) -> Failure | None:
        """Begin with the failures that earlier processes met; return the last if they were enough."""
        self._reasons[task] = list(reasons)
        if len(reasons) < self.most:
            return None
        self.say(f"{task.key}: given up after {len(reasons)} tries")
        return Failure(task, reasons[-1], len(reasons))

    def lost(self, worker: str, reason: str) -> None:
        """Log that a worker has ended by itself."""
        self.log("worker_lost", worker=worker, reason=reason)
