"""Ray: workers are actors, on this machine or on all of a cluster, and the driver deals out the shards.

Ray carries tasks and short answers. Images and features go from the worker's memory into the run folder,
which all nodes share; the object store holds what a worker is told of a run, once. Actors live as long as
their driver: Ray ends those of one that died, and the fence keeps back what it could not reach.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import sd2eval
from sd2eval.config import EngineConfig
from sd2eval.engines import ray_cluster
from sd2eval.engines.base import Assignment, Attempts, Failure, choose
from sd2eval.engines.ray_actor import Actor
from sd2eval.engines.ray_cluster import Slot
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.progress import Progress
from sd2eval.worker import Task

LOOK_SECONDS = 0.5
"""How often the driver looks whether a signal came."""
PLACE_SECONDS = 60.0
"""How long the first workers wait for each other, so that each knows its share of its machine's energy."""
LISTING_SECONDS = 90.0
"""A network file system may show a shard that another node has published only after a minute."""
STARTS = 4
"""A worker that ends so often in a row before it has a shard is not started again."""


@contextmanager
def actors(
    config: EngineConfig, assignment: Assignment, attempts: Attempts, progress: Progress, interrupt: Interrupt
) -> Iterator[Actors]:
    """Open the engine, and leave no actor behind; a cluster that was started for it ends.

    Raises:
        InputError: Ray is not installed, its cluster does not answer, or no worker fits into it.
    """
    with ray_cluster.connected(config) as ray:
        one = ray_cluster.slot(ray, config, assignment.config.device)
        count = _count(ray, config, one, progress)
        if one.gpus and assignment.device.type == "cpu" and assignment.config.dtype == "auto":
            progress.print(f"dtype=auto is {assignment.dtype}: this process has no GPU, its workers have")
        engine = Actors(ray, ray.put(assignment), assignment, one, count, attempts, progress, interrupt)
        try:
            yield engine
        finally:
            engine.close()


def _count(ray: ModuleType, config: EngineConfig, one: Slot, progress: Progress) -> int:
    """Return how many actors to start: as many as were asked for and fit."""
    fit = ray_cluster.room(ray, one)
    if fit == 0:
        raise InputError(
            f"engine=ray: no node of the cluster has {one} for a worker; "
            f"see engine.cpus_per_worker and engine.gpus_per_worker"
        )
    if config.workers is not None and config.workers > fit:
        progress.print(f"engine.workers={config.workers}: {fit} fit into the cluster, each with {one}")
    return min(config.workers or fit, fit)


@dataclass
class _Hand:
    """An actor as the driver sees it: what it was asked last, and with which shard."""

    index: int
    actor: Any
    asked: Literal["place", "enlist", "run", ""] = ""
    answer: Any = None
    """Where the answer will be; None when it was read."""
    host: str = ""
    task: Task | None = None
    starts: int = 1
    unfit: set[str] = field(default_factory=set)
    """Checkpoints that do not load there."""


@dataclass
class Actors:
    """Keeps the actors busy; one that dies is replaced, and its shard goes to another."""

    ray: ModuleType
    told: Any
    """Where Ray has the assignment."""
    assignment: Assignment
    slot: Slot
    count: int
    attempts: Attempts
    progress: Progress
    interrupt: Interrupt
    parallel: bool = True
    _hands: list[_Hand] = field(default_factory=list)
    _begun: float = 0.0
    _queued: bool = False

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """See `Engine.run`."""
        queue, given_up = deque(tasks), []
        while len(self._hands) < min(self.count, len(tasks)):
            self._begun = time.monotonic()
            self._hands.append(self._start(_Hand(len(self._hands), None)))
        while queue or any(hand.task for hand in self._hands):
            self._deal(queue)
            self.interrupt.check()
            hand = self._next()
            if hand is None:
                continue
            task = hand.task
            reason = self._hear(hand)
            if reason is None or task is None:
                continue
            final = self.attempts.failed(task, reason)
            if final is None:
                queue.append(task)
            else:
                given_up.append(final)
        return given_up

    def close(self) -> None:
        """End the actors; what they have not published is lost."""
        for hand in self._hands:
            self._kill(hand)
        self._hands.clear()

    def _start(self, hand: _Hand) -> _Hand:
        options: dict[str, Any] = {"num_cpus": self.slot.cpus, "num_gpus": self.slot.gpus}
        variables = ray_cluster.passed_on()
        if variables:
            options["runtime_env"] = {"env_vars": variables}
        remote = self.ray.remote(Actor).options(
            scheduling_strategy="SPREAD", max_restarts=0, max_task_retries=0, **options
        )
        hand.actor, hand.host, hand.task = remote.remote(), "", None
        hand.unfit.clear()
        hand.asked, hand.answer = "place", hand.actor.place.remote()
        return hand

    def _deal(self, queue: deque[Task]) -> None:
        """Ask every actor that is free for the next thing."""
        placed = all(hand.host for hand in self._hands)
        others = [hand.unfit for hand in self._hands if hand.host]  # some may wait for room for ever
        late = time.monotonic() - self._begun > PLACE_SECONDS
        for hand in self._hands:
            if hand.answer is not None:
                continue
            if hand.asked == "place":
                if placed or late:
                    device = _device(self.assignment.config.device, self.slot)
                    hand.asked = "enlist"
                    hand.answer = hand.actor.enlist.remote(
                        self.told, device, self.slot.cpus, self._share(hand)
                    )
            elif (task := choose(queue, hand.unfit, others)) is not None:
                queue.remove(task)
                hand.task, hand.asked = task, "run"
                hand.answer = hand.actor.run.remote(hand.task, self._share(hand))

    def _share(self, hand: _Hand) -> float:
        """Return the part of its machine's energy that is an actor's."""
        return 1 / Counter(other.host for other in self._hands)[hand.host]

    def _next(self) -> _Hand | None:
        """Return an actor that has answered, or None after a while."""
        asked = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        ready, _ = self.ray.wait(list(asked), num_returns=1, timeout=LOOK_SECONDS)
        if ready:
            return asked[ready[0]]
        if not any(hand.host for hand in self._hands) and time.monotonic() - self._begun > PLACE_SECONDS:
            self._wait_for_room()
        return None

    def _wait_for_room(self) -> None:
        if not ray_cluster.room(self.ray, self.slot):
            raise Stopped(f"no node of the Ray cluster is left that has {self.slot}")
        if not self._queued:
            self.progress.print("waiting for the first worker: it loads, or others use the Ray cluster")
        self._queued = True

    def _hear(self, hand: _Hand) -> str | None:
        """Read an answer; return why its shard failed."""
        try:
            answer = self.ray.get(hand.answer)
        except self.ray.exceptions.RayError as error:
            return self._replace(hand, error)
        hand.answer = None
        if hand.asked == "place":
            hand.host, version = answer
            if version != sd2eval.__version__:
                raise InputError(f"node {hand.host} has sd2eval {version}, its driver {sd2eval.__version__}")
            return None
        for line in answer.lines:
            self.progress.print(line)
        if answer.kind == "refused":
            raise InputError(answer.text)
        if answer.kind == "stopped":
            raise Stopped(answer.text)
        if hand.asked == "run":
            task, hand.task = hand.task, None
            assert task is not None
            if answer.kind == "unloadable":
                hand.unfit.add(task.checkpoint)
            if answer.kind in ("failed", "unloadable"):
                return str(answer.text)
            hand.starts = 0
            await_shard(self.assignment.path, task, hand.host, self.interrupt)
            self.progress.advance(answer.images, answer.captions)
        return None

    def _replace(self, hand: _Hand, error: Exception) -> str:
        """Start another actor for one that ended, or whose node did; return what happened."""
        self._kill(hand)  # Ray may have lost sight of it only
        name = f"worker {hand.index}{f' on {hand.host}' if hand.host else ''}"
        reason = f"{name} was lost ({_line(error)})"
        self.attempts.lost(name, reason)
        if hand.task is not None:
            reason = f"{hand.task.key}: {reason}"
            self._start(hand)
            return reason
        self.attempts.say(reason)
        hand.starts += 1
        if hand.starts <= STARTS:
            self._start(hand)
        else:
            self._hands.remove(hand)
        if not self._hands:
            raise Stopped(f"no worker is left: {reason}")
        return reason

    def _kill(self, hand: _Hand) -> None:
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(hand.actor)


def await_shard(path: Path, task: Task, host: str, interrupt: Interrupt) -> None:
    """Return when a shard that a worker has published is there for this process as well.

    Raises:
        Stopped: it does not come.
    """
    shard = path / "shards" / task.checkpoint / task.block.key
    deadline = time.monotonic() + LISTING_SECONDS
    while not shard.is_dir():
        interrupt.check()
        if time.monotonic() > deadline:
            raise Stopped(f"{host} has published {task.key}, but it is not in {path} as seen from here")
        time.sleep(LOOK_SECONDS)


def _device(setting: str, one: Slot) -> str:
    """Return an actor's device: Ray shows it its own GPUs only."""
    if one.gpus:
        return "cuda:0"
    return "cpu" if setting == "auto" else setting


def _line(error: Exception) -> str:
    """Return what a Ray error says, without its traceback and tables."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        error = cause
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
