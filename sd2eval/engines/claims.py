"""Who makes which shard, where workers share nothing but the run folder.

A claim is a file that only one can create. It stays when its shard is published and goes when that failed, so
that anybody may try again. What failed is a file too: all workers count alike how often a shard was tried.
The folder belongs to one driver, by its token: without the folder there is nothing to work for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sd2eval.errors import Stopped
from sd2eval.store import CLAIMS, TEMPORARY, RunFolder
from sd2eval.worker import Task

CLAIM, FAILED, END, LEFT = "claim", "failed-", "end", "left"


@dataclass(frozen=True)
class Look:
    """What the folder said at one moment."""

    made: set[Task]
    claimed: set[Task]
    failures: dict[Task, int]
    """How often each failed so far."""

    def free(self, tasks: Iterable[Task], tries: int) -> list[Task]:
        """Return the tasks that somebody should take."""
        taken = self.made | self.claimed
        return [task for task in tasks if task not in taken and self.failures[task] < tries]


@dataclass(frozen=True)
class Claims:
    """The claims of one driver's workers."""

    path: Path
    """The run folder."""
    token: str
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.path / CLAIMS / self.token)

    def open(self) -> None:
        """Begin as the run folder's driver: earlier drivers are gone, and so are their claims."""
        forget(self.path)
        self.folder.mkdir(parents=True)

    def close(self) -> None:
        """End as the driver: workers that are left stop at their next look."""
        forget(self.path)

    def look(self, tasks: Sequence[Task]) -> Look:
        """Return where the tasks stand.

        Raises:
            Stopped: the driver has ended.
        """
        names, store = self._names(), RunFolder(self.path)
        blocks = {checkpoint: set(store.blocks(checkpoint)) for checkpoint in {t.checkpoint for t in tasks}}
        failed = Counter(name.rpartition(".")[0] for name in names if _kind(name).startswith(FAILED))
        return Look(
            made={task for task in tasks if task.block in blocks[task.checkpoint]},
            claimed={task for task in tasks if f"{_stem(task)}.{CLAIM}" in names},
            failures={task: failed[_stem(task)] for task in tasks},
        )

    def take(self, task: Task, job: str) -> bool:
        """Claim a task for a job; False if another was faster.

        Raises:
            Stopped: the driver has ended.
        """
        try:
            descriptor = os.open(self._file(task), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise Stopped("the driver has ended") from None
        with os.fdopen(descriptor, "w") as file:
            json.dump({"job": job, "host": socket.gethostname(), "process": os.getpid()}, file)
        return True

    def owner(self, task: Task) -> str | None:
        """Return whose claim it is: a job; "" while that is being written; None: nobody's."""
        try:
            text = self._file(task).read_text()
        except FileNotFoundError:
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(text)["job"])
        return ""

    def give_back(self, task: Task, job: str) -> None:
        """Let others have a task that a job claimed; nothing happens to a claim of another one."""
        if self.owner(task) == job:
            self.free(task)

    def free(self, task: Task) -> None:
        """Remove a claim, whoever's it is."""
        self._file(task).unlink(missing_ok=True)

    def fail(self, task: Task, reason: str) -> None:
        """Record that a task failed, then let others have it."""
        number = sum(name.startswith(f"{_stem(task)}.{FAILED}") for name in self._names()) + 1
        self._write(f"{_stem(task)}.{FAILED}{number}", {"reason": reason})
        self.free(task)

    def reason(self, task: Task, number: int) -> str:
        """Return why a task failed for the first, second, ... time."""
        return str(self._read(f"{_stem(task)}.{FAILED}{number}")["reason"])

    def end(self, kind: str, message: str) -> None:
        """Tell the driver that no shard can be made at all: the name of an error, and its line."""
        self._write(f"{os.getpid()}-{socket.gethostname()}.{END}", {"kind": kind, "message": message})

    def ends(self) -> list[tuple[str, str]]:
        """Return what workers told with `end`."""
        records = [self._read(name) for name in sorted(self._names()) if _kind(name) == END]
        return [(record["kind"], record["message"]) for record in records]

    def leave(self, job: str) -> None:
        """Tell the driver that a job ends because it was told to: nothing is wrong with it."""
        self._write(f"{job}-{os.getpid()}.{LEFT}", {})

    def left(self) -> int:
        """Return how many jobs told that with `leave`."""
        return sum(_kind(name) == LEFT for name in self._names())

    def _names(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}
        except FileNotFoundError:
            raise Stopped("the driver has ended") from None

    def _file(self, task: Task) -> Path:
        return self.folder / f"{_stem(task)}.{CLAIM}"

    def _write(self, name: str, content: dict[str, str]) -> None:
        # Not with `write_bytes`, which would make the folder of a driver that has ended anew.
        temporary = self.folder / f".{name}-{os.getpid()}"
        try:
            temporary.write_text(json.dumps(content))
            temporary.rename(self.folder / name)
        except FileNotFoundError:
            raise Stopped("the driver has ended") from None

    def _read(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text())  # type: ignore[no-any-return]


def forget(path: Path) -> None:
    """Remove all claims in a run folder: those of drivers that are gone, whose workers then stop."""
    aside = path / f"{TEMPORARY}{CLAIMS}-{uuid.uuid4().hex[:8]}"  # nobody writes into it any more
    with contextlib.suppress(FileNotFoundError):
        (path / CLAIMS).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _stem(task: Task) -> str:
    return f"{task.checkpoint}-{task.block.key}"


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
