"""engine=ray without Ray: workers that do not get ready, or cannot load a checkpoint, as a driver sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sd2eval import __version__
from sd2eval.engines import ray as engine_ray
from sd2eval.engines.base import Attempts
from sd2eval.engines.ray import STARTS, Actors
from sd2eval.engines.ray_actor import Actor, Answer
from sd2eval.engines.ray_cluster import Slot
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.plan import Block
from sd2eval.progress import Progress
from sd2eval.worker import ShardFailed, Task, Unloadable

TASKS = [Task("512-base", Block(number, number), (1.5,)) for number in range(6)]
MEMORY = "cuda:0 on node: OutOfMemoryError: CUDA out of memory"


class RayError(Exception):
    cause: Exception


def actors(
    monkeypatch: pytest.MonkeyPatch, workers: int, answer: Callable[[int, str, Task | None], Answer]
) -> tuple[Actors, list[str], list[int]]:
    """Return the engine, what it says, and which actors were started; they answer at once."""
    said, started = list[str](), list[int]()

    def start(hand: Any) -> Any:
        started.append(hand.index)
        calls = {
            name: SimpleNamespace(remote=lambda *given, name=name: (hand.index, name, given))
            for name in ("place", "enlist", "run")
        }
        hand.actor, hand.host, hand.task = SimpleNamespace(**calls), "", None
        hand.asked, hand.answer = "place", hand.actor.place.remote()
        return hand

    def get(asked: Any) -> Any:
        index, name, given = asked
        return ("node", __version__) if name == "place" else answer(index, name, given and given[0])

    ray: Any = SimpleNamespace(
        exceptions=SimpleNamespace(RayError=RayError),
        wait=lambda asked, **_: (asked[:1], []),
        get=get,
        kill=lambda _: None,
    )
    told: Any = SimpleNamespace(path=Path("nowhere"), config=SimpleNamespace(device="cpu"))
    attempts = Attempts(3, said.append)
    engine = Actors(ray, None, told, Slot(1, 0), workers, attempts, Progress(6, quiet=True), Interrupt())
    monkeypatch.setattr(engine, "_start", start)
    monkeypatch.setattr(engine_ray, "await_shard", lambda *_: None)
    return engine, said, started


def test_workers_that_find_no_memory_at_their_start_end_the_run_after_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(*_: object) -> Answer:
        error = RayError("a traceback")
        error.cause = MemoryError(MEMORY)
        raise error

    engine, said, started = actors(monkeypatch, 2, answer)
    with pytest.raises(Stopped, match=r"no worker is left: worker \d on node was lost \(MemoryError: cuda:0"):
        engine.run(TASKS)
    assert sorted(started) == [0] * STARTS + [1] * STARTS
    assert all(MEMORY in line for line in said)


def test_a_checkpoint_that_does_not_load_in_one_worker_is_left_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def answer(index: int, name: str, task: Task | None) -> Answer:
        if name == "enlist":
            return Answer("ready")
        asked.append(index)
        return Answer("unloadable", MEMORY) if index == 0 else Answer("done", images=1, captions=1)

    engine, _, _ = actors(monkeypatch, 2, answer)
    assert engine.run(TASKS) == []
    assert asked.count(0) == 1


def test_an_actor_answers_what_failed_and_is_lost_where_memory_is_too_little_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(task: Any) -> None:
        raise task

    actor = Actor()
    worker: Any = SimpleNamespace(session=SimpleNamespace(meter=SimpleNamespace(share=1.0)), run=run)
    actor._worker = worker
    told: Any = SimpleNamespace(path=tmp_path, token="token")
    errors: list[Any] = [ShardFailed("a"), Unloadable("b"), InputError("c"), Stopped("d")]
    assert [actor.run(error, 1.0).kind for error in errors] == ["failed", "unloadable", "refused", "stopped"]

    def enlist(*_: object) -> None:
        raise MemoryError(MEMORY)

    monkeypatch.setattr("sd2eval.engines.ray_actor.enlist", enlist)
    monkeypatch.setattr("sd2eval.engines.ray_actor.see_run", lambda *_: None)
    with pytest.raises(MemoryError, match="cuda:0"):
        actor.enlist(told, "cuda:0", 1, 1.0)
