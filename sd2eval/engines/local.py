"""This machine: in this process, or in several that share the cores or have a GPU each."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from sd2eval.engines.base import Assignment, Attempts, Failure, device_of, enlist
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.progress import Progress
from sd2eval.worker import ShardFailed, Task, Worker

LOOK_SECONDS = 0.5
"""How often the driver looks whether a signal came."""
GRACE_SECONDS = 10.0
"""How long a worker may take to stop when told to."""


@dataclass
class InProcess:
    """Makes the shards here, one after the other."""

    worker: Worker
    attempts: Attempts
    parallel: bool = False

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """See `Engine.run`."""
        given_up = []
        for task in tasks:
            while True:
                try:
                    self.worker.run(task)
                except ShardFailed as error:
                    final = self.attempts.failed(task, str(error))
                    if final is None:
                        continue
                    given_up.append(final)
                break
        return given_up


@dataclass
class _Hand:
    """A worker process as the driver sees it."""

    process: BaseProcess
    pipe: Connection
    index: int
    task: Task | None = None


@dataclass
class Processes:
    """Keeps several processes busy; one that dies is replaced, and its shard goes to another."""

    assignment: Assignment
    count: int
    attempts: Attempts
    progress: Progress
    interrupt: Interrupt
    parallel: bool = True
    _hands: list[_Hand] = field(default_factory=list)

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """See `Engine.run`."""
        queue, given_up = deque(tasks), []
        while len(self._hands) < min(self.count, len(tasks)):
            self._hands.append(_start(self.assignment, len(self._hands), self.count))
        while queue or any(hand.task for hand in self._hands):
            for hand in self._hands:
                if hand.task is None and queue:
                    hand.task = queue.popleft()
                    hand.pipe.send(hand.task)
            self.interrupt.check()
            for pipe in wait([hand.pipe for hand in self._hands], LOOK_SECONDS):
                hand = next(hand for hand in self._hands if hand.pipe is pipe)
                failed = self._hear(hand)
                if failed is not None:
                    task, reason = failed
                    final = self.attempts.failed(task, reason)
                    if final is None:
                        queue.append(task)
                    else:
                        given_up.append(final)
        return given_up

    def close(self) -> None:
        """Stop the workers; what they have not published is lost."""
        for hand in self._hands:
            hand.process.terminate()  # at any moment: a shard is published whole or not at all
        for hand in self._hands:
            hand.process.join(GRACE_SECONDS)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()
            hand.pipe.close()
        self._hands.clear()

    def _hear(self, hand: _Hand) -> tuple[Task, str] | None:
        """Take a message; return a task that failed and why."""
        try:
            kind, *content = hand.pipe.recv()
        except (EOFError, ConnectionError):
            return self._replace(hand)
        if kind == "advance":
            self.progress.advance(*content)
        elif kind == "energy":
            self.progress.energy(*content)
        elif kind == "print":
            self.progress.print(f"worker {hand.index}: {content[0]}")
        elif kind == "refused":
            raise InputError(content[0])
        elif kind == "stopped":
            raise Stopped(content[0])
        elif kind == "done":
            hand.task = None
        elif kind == "failed":
            task, hand.task = hand.task, None
            assert task is not None
            return task, content[0]
        return None

    def _replace(self, hand: _Hand) -> tuple[Task, str] | None:
        """Start another process for one that ended by itself."""
        hand.process.join()
        code = hand.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        task = hand.task
        new = _start(self.assignment, hand.index, self.count)
        hand.process, hand.pipe, hand.task = new.process, new.pipe, None
        if task is None:
            self.attempts.say(f"worker {hand.index} ended {how}; another one was started")
            return None
        return task, f"{task.key}: worker {hand.index} ended {how}"


def _start(assignment: Assignment, index: int, count: int) -> _Hand:
    context = get_context("spawn")  # a forked process has no working CUDA, and torch's locks as they were
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, assignment, index, count), daemon=True)
    process.start()
    theirs.close()
    return _Hand(process, ours, index)


class _Relay:
    """A display that passes everything on to the driver's."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def advance(self, images: int, captions: int = 0) -> None:
        """Pass on."""
        self._pipe.send(("advance", images, captions))

    def print(self, message: str) -> None:
        """Pass on."""
        self._pipe.send(("print", message))

    def status(self, text: str) -> None:
        """Keep quiet: several workers do several things."""

    def energy(self, kwh: float, kg_co2: float, method: str) -> None:
        """Keep quiet: the driver cannot add up what overlaps."""


class _Orphan(Interrupt):
    """Asks whether the driver is still there."""

    def __init__(self) -> None:
        super().__init__()
        self._driver = os.getppid()

    def check(self) -> None:
        """Raise `Stopped` if the driver died."""
        if os.getppid() != self._driver:
            raise Stopped("the driver has gone")


def _serve(pipe: Connection, assignment: Assignment, index: int, count: int) -> None:
    """Work for a driver until it closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the driver decides
    device = device_of(assignment.config.device, index)
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    try:
        worker = enlist(assignment, device, _Relay(pipe), _Orphan(), 1 / count)
        while True:
            task: Any = pipe.recv()
            try:
                worker.run(task)
                pipe.send(("done",))
            except ShardFailed as error:
                pipe.send(("failed", str(error)))
    except InputError as error:
        pipe.send(("refused", str(error)))
    except Stopped as error:
        _tell(pipe, ("stopped", str(error)))
    except (EOFError, BrokenPipeError, ConnectionError):
        return  # the driver has closed the pipe, or died


def _tell(pipe: Connection, message: tuple[str, str]) -> None:
    try:
        pipe.send(message)
    except OSError:
        return
