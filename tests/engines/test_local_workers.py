"""engine=local: which workers are started, as the driver sees it; here they are threads that play a part."""

from __future__ import annotations

import io
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sd2eval.engines.base import Attempts, choose
from sd2eval.engines.local import Processes, _Hand
from sd2eval.errors import Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.plan import Block
from sd2eval.progress import Progress
from sd2eval.worker import Task

TASKS = [Task("512-base", Block(number, number), (1.5,)) for number in range(6)]
Part = Callable[[Connection], None]


def works(pipe: Connection, until: Callable[[], object] = lambda: None) -> None:
    pipe.send(("ready", "cuda"))
    while True:
        pipe.recv()
        until()
        pipe.send(("done",))


def gone(pipe: Connection) -> None:
    pipe.send(("ready", "cuda"))
    pipe.recv()
    pipe.send(("lost", "uncorrectable ECC error", True))


def in_vain(pipe: Connection) -> None:
    """End before it is ready."""


class Narrow:
    """A worker for whose device a checkpoint is too large, as it says of the third attempt to load it."""

    def __init__(self) -> None:
        self.failed, self.often = 0, threading.Event()

    def __call__(self, pipe: Connection) -> None:
        pipe.send(("ready", "cuda"))
        while True:
            task, _ = pipe.recv()
            if task.checkpoint == "512-base":
                self.failed += 1
                pipe.send(("failed", "out of memory", self.failed >= 3))
                if self.failed == 3:
                    self.often.set()
            else:
                pipe.send(("done",))


class Company:
    """Starts the workers of an engine: each number plays its parts one after the other, the last for good."""

    def __init__(self, *parts: Part) -> None:
        self.parts, self.started, self.said = parts, list[int](), list[str]()

    def engine(self) -> Processes:
        told: Any = SimpleNamespace(path=Path("nowhere"))
        attempts = Attempts(3, self.said.append)
        engine = Processes(told, len(self.parts), attempts, Progress(6, quiet=True), Interrupt())
        engine._start = self.start  # type: ignore[method-assign]
        return engine

    def start(self, index: int) -> _Hand:
        self.started.append(index)
        ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
        threading.Thread(target=self.play, args=(self.parts[index], theirs), daemon=True).start()
        process: Any = SimpleNamespace(pid=index, returncode=1, wait=lambda _=None: 1, kill=lambda: None)
        return _Hand(index, process, ours, io.BytesIO(b"MemoryError: cuda on here\n"))

    def play(self, part: Part, pipe: Connection) -> None:
        with pipe, suppress(EOFError, OSError):  # its driver has ended it
            part(pipe)


@pytest.mark.parametrize(
    ("parts", "started"),
    [
        ((gone, gone, works), [0, 1, 2]),
        ((in_vain, works, works), [0, 0, 0, 1]),
        ((in_vain, gone, works), [0, 0, 0, 1, 2]),
    ],
)
def test_with_fewer_shards_than_devices_the_next_one_is_tried(
    parts: tuple[Part, ...], started: list[int]
) -> None:
    company = Company(*parts)
    assert company.engine().run(TASKS[:1]) == []
    assert company.started == started


@pytest.mark.parametrize(
    ("parts", "started", "line"),
    [
        ((gone, gone), [0, 1], r"no device is left: worker 1 \(cuda\) ended \(uncorrectable ECC error\)"),
        ((gone, in_vain), [0, 1, 1, 1], r"no worker gets ready: worker 1 ended .*MemoryError.*, 3 times"),
    ],
)
def test_when_all_were_tried_the_run_stops(parts: tuple[Part, ...], started: list[int], line: str) -> None:
    company = Company(*parts)
    with pytest.raises(Stopped, match=line):
        company.engine().run(TASKS[:1])
    assert company.started == started


def test_a_device_that_is_left_out_is_replaced_beside_one_that_works() -> None:
    replaced = threading.Event()

    def stays(pipe: Connection) -> None:
        works(pipe, lambda: replaced.wait(5))

    def successor(pipe: Connection) -> None:
        replaced.set()
        works(pipe)

    company = Company(gone, stays, successor)
    assert company.engine().run(TASKS[:2]) == []
    assert company.started == [0, 1, 2]
    assert [line for line in company.said if "its device is left out" in line]


def test_a_checkpoint_that_does_not_load_in_one_worker_is_left_to_the_others() -> None:
    narrow, small = Narrow(), [Task("small", task.block, (1.5,)) for task in TASKS]
    company = Company(narrow, lambda pipe: works(pipe, lambda: narrow.often.wait(20)))
    assert company.engine().run([*TASKS, *small]) == []
    assert narrow.failed == 3


def test_a_checkpoint_that_loads_in_no_worker_is_given_up_and_the_others_are_finished() -> None:
    small = [Task("small", task.block, (1.5,)) for task in TASKS]
    given_up = Company(Narrow(), Narrow()).engine().run([*TASKS, *small])
    assert sorted(failure.task for failure in given_up) == TASKS


@pytest.mark.parametrize(
    ("unfit", "others", "chosen"),
    [
        ("", ["", ""], "abc"),
        ("a", ["a", ""], "b"),
        ("abc", ["abc", "a"], "a"),
        ("abc", ["abc", "b", "bc"], "b"),
        ("abc", ["abc", "c", "ab"], ""),
    ],
)
def test_what_a_worker_cannot_load_is_its_work_only_where_no_other_can(
    unfit: str, others: list[str], chosen: str
) -> None:
    queue = [Task(name, Block(0, 0), (1.5,)) for name in "abc"]
    found = choose(queue, unfit, others)
    assert (found.checkpoint if found else "") == chosen[:1]


def test_a_worker_that_not_even_sigkill_ends_is_not_waited_for_for_ever() -> None:
    def wait(timeout: float | None = None) -> int:
        assert timeout is not None, "it would wait for ever"
        raise subprocess.TimeoutExpired("worker", timeout)

    killed: list[bool] = []
    process: Any = SimpleNamespace(wait=wait, kill=lambda: killed.append(True), returncode=None)
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    with theirs:
        said = _Hand(0, process, ours, io.BytesIO()).end("unspecified launch failure")
    assert killed
    assert "worker 0 was killed, and has not ended for 20 seconds" in said
    assert said.endswith("(unspecified launch failure)")
