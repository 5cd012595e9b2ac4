"""A cluster under Slurm: one job array, whose tasks claim shards from the run folder.

The driver and the tasks share nothing but that folder: a task claims a shard, makes it, publishes it and
takes the next. The driver watches what appears there, frees what a dead task had claimed, and submits again
what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sd2eval.config import EngineConfig
from sd2eval.engines.array_task import ArrayTask
from sd2eval.engines.base import Assignment, Attempts, Failure
from sd2eval.engines.claims import Claims, Look
from sd2eval.engines.submission import ASK_SECONDS, Jobs, NotNow
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.progress import Progress
from sd2eval.store import LOGS
from sd2eval.worker import Task

LOOK_SECONDS = 2.0
"""How often the driver looks into the run folder."""
MOST_REFUSALS = 8
"""So often in a row Slurm may refuse to submit while no job lives: two minutes, at `ASK_SECONDS` each."""


@dataclass
class Slurm:
    """Has a job array make the shards; one that ends early is submitted again."""

    assignment: Assignment
    config: EngineConfig
    attempts: Attempts
    progress: Progress
    interrupt: Interrupt
    parallel: bool = True
    _counted: dict[Task, int] = field(default_factory=dict)
    """How many failures of each task are in `attempts` already."""
    _short: int = 0
    """Looks in a row at which jobs were missing."""
    _fruitless: int = 0
    """Submissions in a row after which nothing was made, or failed, and no job was told to end."""
    _refused: bool = False
    """Whether Slurm refused the last submission."""
    _stranded: int = 0
    """Submissions in a row that it refused with no job alive."""
    _again: float = 0.0
    """When, by the monotonic clock, it is asked again after that."""
    _left: int = 0
    """Jobs that were told to end, by preemption for example."""

    def __post_init__(self) -> None:
        folder = self.config.folder
        logs = Path(folder).expanduser().absolute() if folder else self.assignment.path / LOGS
        self._jobs = Jobs(self.config, logs)
        self._claims = Claims(self.assignment.path, self.assignment.token)
        self._claims.open()

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """See `Engine.run`."""
        waiting, given_up = list(tasks), []
        self._fruitless = 0
        while True:
            self.interrupt.check()
            alive = self._jobs.alive()  # before the look: what an ended job published is seen
            look = self._claims.look(waiting)
            self._heed_ends()
            self._count(look)
            final = self._failed(look)
            given_up += final
            lost = look.made | {failure.task for failure in final}
            waiting = [task for task in waiting if task not in lost]
            if not waiting:
                return given_up
            self._free_claims_of_the_dead(waiting, look, alive)
            self._staff(waiting, look, alive)
            self._show(alive)
            self._pause()

    def close(self) -> None:
        """Stop the jobs; what they have not published is lost."""
        try:
            self._jobs.cancel()
        finally:
            self._claims.close()

    def _heed_ends(self) -> None:
        for kind, message in self._claims.ends():
            raise {"InputError": InputError, "Stopped": Stopped}[kind](message)

    def _count(self, look: Look) -> None:
        left = self._claims.left()
        if left > self._left:
            self._fruitless, self._left = 0, left
        for task in sorted(look.made):
            self._fruitless = 0
            self.progress.advance(len(task.block) * len(task.scales), len(task.block))

    def _failed(self, look: Look) -> list[Failure]:
        """Note what failed since the last look; return what is given up."""
        found = []
        for task, failures in look.failures.items():
            for number in range(self._counted.get(task, 0) + 1, failures + 1):
                self._fruitless, self._counted[task] = 0, number
                final = self.attempts.failed(task, self._claims.reason(task, number))
                if final is not None and task not in look.made:
                    found.append(final)
        return found

    def _free_claims_of_the_dead(self, waiting: Sequence[Task], look: Look, alive: dict[str, str]) -> None:
        for task in waiting:
            owner = self._claims.owner(task) if task in look.claimed else None
            if owner is None or owner in alive or (owner == "" and alive):
                continue
            reason = self._jobs.why_ended(owner)
            self.attempts.lost(f"job {owner}", reason)
            self._claims.fail(task, f"{task.key}: its worker, job {owner}, {reason}")

    def _staff(self, waiting: Sequence[Task], look: Look, alive: dict[str, str]) -> None:
        """Submit the tasks of the array that are missing, while there is something to take."""
        free = look.free(waiting, self.config.tries)
        missing = min((self.config.workers or 1) - len(alive), len(free))
        self._short = self._short + 1 if missing > 0 else 0
        if missing <= 0 or (alive and self._short < 2):  # who let go of a shard takes it again at once
            return
        if self._fruitless >= self.config.tries:
            if alive:  # on other nodes, perhaps: a shard that they make shows that jobs can work
                return
            raise InputError(
                f"engine=slurm: jobs were submitted {self._fruitless} times and ended before a shard was "
                f"made; the last one's log: {self._jobs.last_log()}"
            )
        if time.monotonic() >= self._again:
            self._submit(waiting, missing, alive)

    def _submit(self, waiting: Sequence[Task], missing: int, alive: dict[str, str]) -> None:
        """Submit an array, or wait where Slurm takes none now: the jobs that live do not need it."""
        driver = os.getpid() if self.config.cluster == "local" else None
        try:
            self._jobs.submit(
                [
                    ArrayTask(self.assignment, waiting, self.config, number, driver)
                    for number in range(missing)
                ]
            )
        except NotNow as refusal:
            self._again = time.monotonic() + ASK_SECONDS[self.config.cluster]
            self._stranded = 0 if alive else self._stranded + 1
            if not self._refused:
                self.progress.print(f"Slurm takes no job now, it is asked again ({refusal})")
            self._refused = True
            if self._stranded >= MOST_REFUSALS:
                raise Stopped(f"Slurm took no job {self._stranded} times: {refusal}") from refusal
        else:
            self._fruitless += 1
            self._refused, self._stranded = False, 0

    def _show(self, alive: dict[str, str]) -> None:
        running = sum(state == "RUNNING" for state in alive.values())
        self.progress.status(f"jobs: {running} running, {len(alive) - running} waiting")

    def _pause(self) -> None:
        end = time.monotonic() + min(LOOK_SECONDS, ASK_SECONDS[self.config.cluster])
        while (left := end - time.monotonic()) > 0:
            self.interrupt.check()
            time.sleep(min(left, 0.5))
