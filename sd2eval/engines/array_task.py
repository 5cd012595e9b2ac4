"""One task of a job array: it makes shards, one after the other, until none is left to take.

submitit pickles it, and starts it anew, from `checkpoint`, when its time is over or others need the node.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

import torch

from sd2eval.config import EngineConfig
from sd2eval.engines.base import Assignment, check_token, device_of, enlist
from sd2eval.engines.claims import Claims
from sd2eval.engines.submission import shard_seconds
from sd2eval.errors import EXIT_RESUMABLE, InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.worker import DeviceLost, ShardFailed, Task, Unloadable, Worker


@dataclass
class ArrayTask:
    """Makes shards for a driver elsewhere; called once in each life of a job."""

    assignment: Assignment
    tasks: Sequence[Task]
    engine: EngineConfig
    number: int
    """Of this one among those submitted together, from 0."""
    driver: int | None = None
    """The driver's process, if it is one of this machine: without it there is no work."""
    _job: str = ""
    _held: Task | None = None
    _made: int = 0
    _unfit: set[str] = field(default_factory=set)
    """Checkpoints that do not load here."""
    _begun: float = field(default_factory=time.monotonic)

    def __call__(self) -> None:
        """Work until no task is left to take, or the driver has ended."""
        import submitit

        self._job, self._begun = submitit.JobEnvironment().job_id, time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        try:
            self._free_earlier()
            self._work()
        except (InputError, Stopped) as error:
            _say(f"ended: {error}")
            with contextlib.suppress(Stopped, OSError):
                self._claims.end(type(error).__name__, str(error))
        finally:
            self._give_back()

    def checkpoint(self) -> Any:
        """Called by submitit on its signal: give the shard back and return what the next life does."""
        import submitit

        late = time.monotonic() - self._begun > shard_seconds(self.engine)
        with contextlib.suppress(Stopped, OSError):
            if self._held is not None and late and not self._made:
                minutes = self.engine.minutes
                reason = f"{self._held.key}: not made within engine.minutes={minutes}; lower shard_size"
                self._claims.fail(self._held, reason)
        self._give_back()
        _say("requeued")
        return submitit.helpers.DelayedSubmission(
            ArrayTask(self.assignment, self.tasks, self.engine, self.number, self.driver)
        )

    @property
    def _claims(self) -> Claims:
        return Claims(self.assignment.path, self.assignment.token)

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        """End there and then: a shard is published whole or not at all, and libraries swallow exceptions."""
        self._give_back()
        with contextlib.suppress(Stopped, OSError):
            self._claims.leave(self._job)
        _say(f"ended by {signal.Signals(number).name}")
        os._exit(EXIT_RESUMABLE)

    def _give_back(self) -> None:
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._claims.give_back(self._held, self._job)

    def _free_earlier(self) -> None:
        """Free what this job held when its node was lost: it was requeued under the same number."""
        look = self._claims.look(self.tasks)
        for task in look.claimed - look.made:
            self._claims.give_back(task, self._job)

    def _work(self) -> None:
        worker: Worker | None = None
        while self._take() is not None:
            assert self._held is not None
            if worker is None:  # not earlier: an array that waited long may find nothing left
                try:
                    worker = self._enlist()
                except (DeviceLost, MemoryError) as error:  # the node's doing, not the shard's
                    _say(f"no worker gets ready: {error}")
                    return  # which gives the shard back; the driver counts such ends
            try:
                _say(self._held.key)
                worker.run(self._held)
            except ShardFailed as error:
                _say(str(error))
                self._claims.fail(self._held, str(error))
                if isinstance(error, Unloadable):
                    self._unfit.add(self._held.checkpoint)
                if isinstance(error, DeviceLost):
                    return  # the driver submits another task
            self._made += 1
        _say("nothing is left to take")

    def _take(self) -> Task | None:
        """Claim a task, rather one of the checkpoint that is loaded."""
        last, self._held = self._held, None
        while True:
            _Watch(self.assignment, self.driver).check()
            look = self._claims.look(self.tasks)
            elsewhere = self._unfit & {task.checkpoint for task in look.claimed - look.made}
            free = look.free(self.tasks, self.engine.tries)
            free = [task for task in free if task.checkpoint not in elsewhere]  # others can load it
            if not free:
                return None
            wanted = _preferred(free, last, self.number)
            self._held = wanted  # before it is ours: a signal may come at any moment, and finds the owner
            if not self._claims.take(wanted, self._job):
                continue
            if self._claims.look([wanted]).made:  # since the look before
                continue
            return wanted

    def _enlist(self) -> Worker:
        setting, wanted = self.assignment.config.device, self.engine.gpus_per_worker
        if setting == "auto" and wanted and self.engine.cluster == "slurm" and not torch.cuda.is_available():
            raise InputError(
                f"engine.gpus_per_worker={wanted}: job {self._job} finds no GPU on {os.uname().nodename}; "
                "on nodes without one say engine.gpus_per_worker=0"
            )
        device = device_of(setting, 0)  # a job sees its own GPUs only
        cores, count = len(os.sched_getaffinity(0)), os.cpu_count() or 1
        local = self.engine.cluster == "local"
        if local:  # Slurm binds a job to its cores, and torch counts those
            cores = max(1, cores // (self.engine.workers or 1))
            torch.set_num_threads(min(cores, torch.get_num_threads()))
        watch = _Watch(self.assignment, self.driver)
        return enlist(self.assignment, device, _Log(), watch, share=min(1.0, cores / count))


def _preferred(free: Sequence[Task], last: Task | None, number: int) -> Task:
    """Return a free task of the last one's checkpoint, else of one that the number chooses."""
    checkpoints = list(dict.fromkeys(task.checkpoint for task in free))
    loaded = last is not None and last.checkpoint in checkpoints
    wanted = last.checkpoint if loaded and last else checkpoints[number % len(checkpoints)]
    return next(task for task in free if task.checkpoint == wanted)


class _Watch(Interrupt):
    """Asks whether the run folder still has the same driver."""

    def __init__(self, assignment: Assignment, driver: int | None) -> None:
        super().__init__()
        self._path, self._token, self._driver = assignment.path, assignment.token, driver

    def check(self) -> None:
        """Raise `Stopped` if another one has taken over, or ours has ended."""
        check_token(self._path, self._token)
        if not Claims(self._path, self._token).folder.is_dir():
            raise Stopped("the driver has ended")
        if self._driver is not None and not _lives(self._driver):
            raise Stopped("the driver has gone")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class _Log:
    """A display in the job's log."""

    def advance(self, images: int, captions: int = 0) -> None:
        """Keep quiet: the driver counts what is published."""

    def status(self, text: str) -> None:
        """Print what takes long."""
        if text:
            _say(text)

    def print(self, message: str) -> None:
        """Print it."""
        _say(message)

    def energy(self, kwh: float, kg_co2: float, method: str) -> None:
        """Keep quiet: it is in the shard's manifest."""


def _say(line: str) -> None:
    print(f"sd2eval: {line}", flush=True)
