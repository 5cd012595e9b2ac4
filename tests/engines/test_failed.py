"""Records of shards that broke their process, and looks that draw nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sd2eval
from sd2eval import sweep
from sd2eval.engines import failed
from sd2eval.engines.base import Failure
from sd2eval.errors import Stopped
from sd2eval.plan import Block
from sd2eval.store import RunFolder
from sd2eval.worker import DeviceLost, Task, Worker

TASK = Task("512-base", Block(0, 1), (1.5,))


@pytest.mark.parametrize("content", ["7", "{}", '"reason"', "[1]", "null", "[", "\udcff"])
def test_a_damaged_record_is_none(content: str, tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    failed.note_try(store, TASK, "a reason")
    assert failed.tried(store, TASK) == ["a reason"]
    (record,) = tmp_path.glob("failed/*.tries")
    record.write_bytes(content.encode(errors="surrogateescape"))
    assert failed.tried(store, TASK) == []


def test_a_record_of_another_shard_size_ends_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ("experiment=smoke", "checkpoints=[512-base]", "prompts.n=6", "progress=false", f"out={run}")

    def breaks(worker: Worker, task: Task) -> None:
        raise DeviceLost(f"{task.key}: device-side assert triggered")

    whole = Worker.run
    monkeypatch.setattr(Worker, "run", breaks)
    with pytest.raises(Stopped, match="device-side assert"):
        sd2eval.run_sweep(*words, "shard_size=6")
    assert (run / "failed" / "512-base-000000-000005.tries").is_file()
    monkeypatch.setattr(Worker, "run", whole)
    sd2eval.run_sweep(*words, "shard_size=3")
    assert not (run / "failed").exists()


def test_an_engine_is_given_no_look_without_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The display would say "0 checkpoints" while the metrics are computed."""
    given: list[list[Task]] = []

    class Engine:
        parallel = True

        def run(self, tasks: Sequence[Task]) -> list[Failure]:
            given.append([*tasks])
            return []

    monkeypatch.setattr(sweep, "_tasks", lambda *_: iter([[TASK]]))
    monkeypatch.setattr(sweep, "_note", lambda *_: None)
    job: Any = SimpleNamespace(definitions=["one", "another"])
    assert sweep._draw(job, Engine()) == []
    assert given == [[TASK, TASK]]
