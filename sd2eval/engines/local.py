"""This machine: in this process, or in several that share the cores or have a GPU each."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import IO

from sd2eval.engines import failed
from sd2eval.engines.base import Assignment, Attempts, Failure, announce, choose, last_line
from sd2eval.engines.process import Place
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.progress import Progress
from sd2eval.store import RunFolder
from sd2eval.worker import DeviceLost, ShardFailed, Task, Worker

LOOK_SECONDS = 0.5
"""How often the driver looks whether a signal came."""
END_SECONDS = 20.0
"""How long a worker that is killed, or has closed its end, may take to end."""
MOST_FAULTS = 2
"""A device that fails so often in a row is left out: once may be the shard's doing."""


@dataclass
class InProcess:
    """Makes the shards here, one after the other."""

    worker: Worker
    attempts: Attempts
    parallel: bool = False

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """See `Engine.run`."""
        made = [self._make(task) for task in tasks]
        return [failure for failure in made if failure is not None]

    def _make(self, task: Task) -> Failure | None:
        """Make a shard, in several tries if need be; return it if it is given up."""
        store = self.worker.session.store
        earlier = failed.tried(store, task)
        final = self.attempts.recall(task, earlier)
        while final is None:
            try:
                self.worker.run(task)
                break
            except DeviceLost as error:
                if not error.gone:  # perhaps it is the shard: the next commands must not meet it for ever
                    failed.note_try(store, task, str(error))
                raise Stopped(f"this process cannot go on: {error}") from error
            except ShardFailed as error:
                final = self.attempts.failed(task, str(error))
        if earlier:
            failed.forget_tries(store, task)
        return final


@dataclass
class _Hand:
    """A worker process as the driver sees it."""

    index: int
    process: subprocess.Popen[bytes]
    pipe: Connection
    output: IO[bytes]
    """What it and its libraries print; of interest when it dies."""
    device: str = ""
    """What it works on, once it is ready."""
    task: Task | None = None
    images: int = 0
    """Of its task, as far as the display counts them."""
    unfit: set[str] = field(default_factory=set)
    """Checkpoints that do not load there."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"worker {self.index}" + (f" ({self.device})" if self.device not in ("", "cpu") else "")

    def end(self, said: str = "") -> str:
        """Make sure that it has ended and say how, with what it said of that, or the last that it printed.

        In the middle of a call of a device that hangs it may outlive even SIGKILL: nobody waits for that for
        ever, and it publishes nothing any more.
        """
        self.pipe.close()
        try:
            code = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            how = f"was killed, and has not ended for {END_SECONDS:.0f} seconds: its device may hang"
        else:
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            how = "ended" if said else how
        self.output.seek(0)
        last = said or last_line(self.output.read().decode(errors="replace").split("\n"))
        self.output.close()
        return f"{self.name} {how}" + (f" ({last})" if last else "")


@dataclass
class Processes:
    """Keeps several processes busy; one that dies is replaced, and its shard goes to another."""

    assignment: Assignment
    most: int
    """Workers, where there are shards for so many."""
    attempts: Attempts
    progress: Progress
    interrupt: Interrupt
    parallel: bool = True
    _count: int = 0
    """Workers of this look: each has that part of the cores and of the energy."""
    _hands: list[_Hand] = field(default_factory=list)
    _vain: Counter[int] = field(default_factory=Counter)
    """How often in a row the worker of each number ended before it was ready."""
    _faults: Counter[int] = field(default_factory=Counter)
    """How often in a row the device of each worker failed; at `MOST_FAULTS` it is left out."""

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """See `Engine.run`.

        Raises:
            Stopped: also where no worker gets ready, or no device is left.
        """
        queue, given_up = deque(tasks), list[Failure]()
        self._count = min(self.most, len(tasks))  # a later look may have more
        self._fill()
        announce(self.progress, tasks, self._count)
        while queue or any(hand.task for hand in self._hands):
            self.interrupt.check()
            self._deal(queue)
            heard = wait([hand.pipe for hand in self._hands], LOOK_SECONDS)
            for hand in [hand for hand in self._hands if hand.pipe in heard]:
                heard_of = self._hear(hand)
                if heard_of is None:
                    continue
                final = self.attempts.failed(*heard_of)
                if final is None:
                    queue.append(heard_of[0])
                else:
                    given_up.append(final)
        return given_up

    def _fill(self) -> None:
        """Start the workers that are missing, of numbers where one may get ready and the device is not lost.

        Where there are fewer shards than devices, the next device is tried when one is left out.
        """
        there = {hand.index for hand in self._hands}
        fit = [
            index
            for index in range(self.most)
            if self._faults[index] < MOST_FAULTS and self._vain[index] < self.attempts.most
        ]
        missing = [index for index in fit if index not in there]
        self._hands += [self._start(index) for index in missing[: max(0, self._count - len(there))]]

    def close(self) -> None:
        """End the workers; what they have not published is lost, and what they left half-written goes."""
        for hand in self._hands:
            hand.process.kill()  # at any moment: a shard is published whole or not at all
        for hand in self._hands:
            how = hand.end()
            if hand.process.returncode is None:
                self.attempts.say(how)
        self._hands.clear()
        RunFolder(self.assignment.path).clean()

    def _deal(self, queue: deque[Task]) -> None:
        others = [hand.unfit for hand in self._hands]
        for hand in self._hands:
            if not hand.device or hand.task is not None:
                continue
            task = choose(queue, hand.unfit, others)
            if task is None:
                continue
            try:
                hand.pipe.send((task, self._count))
            except OSError:
                continue  # it has just died, which is heard next
            queue.remove(task)
            hand.task, hand.images = task, 0

    def _hear(self, hand: _Hand) -> tuple[Task, str] | None:
        """Take a message; return a task that failed and why."""
        try:
            kind, *content = hand.pipe.recv()
        except (EOFError, OSError):
            return self._replace(hand)
        if kind == "lost":
            self._faults[hand.index] += MOST_FAULTS if content[1] else 1
            hand.process.kill()  # its exit may hang with the device
            return self._replace(hand, content[0])
        if kind == "failed":
            task, hand.task = hand.task, None
            assert task is not None
            if content[1]:
                hand.unfit.add(task.checkpoint)
            return task, content[0]
        if kind == "ready":
            hand.device, self._vain[hand.index] = content[0], 0
        elif kind == "advance":
            hand.images += content[0]
            self.progress.advance(*content)
        elif kind == "energy":
            kwh, kg_co2, method = content
            self.progress.energy(kwh, kg_co2, method, source=hand.process.pid)
        elif kind == "print":
            self.progress.print(f"{hand.name}: {content[0]}")
        elif kind == "done":
            hand.task, self._faults[hand.index] = None, 0
        else:
            raise {"refused": InputError, "stopped": Stopped}[kind](content[0])
        return None

    def _replace(self, hand: _Hand, said: str = "") -> tuple[Task, str] | None:
        """Have another process in place of one that ended; return its task and why that failed."""
        self._hands.remove(hand)
        how = hand.end(said)
        self.interrupt.check()  # all processes may have got the same signal
        self.attempts.lost(hand.name, how)
        if not hand.device:
            self._vain[hand.index] += 1
        self._fill()
        vain = self._vain[hand.index]
        if self._faults[hand.index] >= MOST_FAULTS:
            if not self._hands:
                raise Stopped(f"no device is left: {how}")
            self.attempts.say(f"{how}; its device is left out")
        elif vain >= self.attempts.most:
            if not self._hands:
                raise Stopped(f"no worker gets ready: {how}, {vain} times")
            self.attempts.say(f"{how}, {vain} times before it was ready; the others go on")
        elif hand.device and hand.task is None:
            self.attempts.say(f"{how}; another one goes on")
        if hand.task is None:
            return None
        self.progress.advance(-hand.images)  # they are made again
        return hand.task, said or f"{hand.task.key}: {how}"

    def _start(self, index: int) -> _Hand:
        """Start a worker in a session of its own: a terminal's Ctrl-C is the driver's to decide about."""
        ours, theirs = socket.socketpair()
        output = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the worker
        with tempfile.TemporaryFile() as told, theirs:
            pickle.dump(Place(self.assignment, index, self._count), told)
            told.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-m", "sd2eval.engines.process", str(theirs.fileno())],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=[theirs.fileno()],
                stdin=told,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return _Hand(index, process, Connection(ours.detach()), output)
