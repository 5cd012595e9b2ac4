"""engine=slurm without jobs: when the driver waits, submits again or ends; and a task that does not start."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

from sd2eval.config import from_overrides
from sd2eval.engines.array_task import ArrayTask
from sd2eval.engines.base import Attempts, take
from sd2eval.engines.claims import Claims
from sd2eval.engines.slurm import MOST_REFUSALS, Slurm
from sd2eval.engines.submission import NotNow
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.plan import Block
from sd2eval.progress import Progress
from sd2eval.store import RunFolder
from sd2eval.worker import DeviceLost, Task, Unloadable

CONFIG = from_overrides("engine=slurm", "engine.cluster=local", "engine.workers=2")[0].engine
TASKS = [Task("512-base", Block(number, number), (1.5,)) for number in range(3)]
ONE = {"7_0": "RUNNING"}
FAULT = "cuda:0 on here: AcceleratorError: CUDA error: device-side assert triggered"


def told(path: Path) -> Any:
    return SimpleNamespace(path=path, token=take(RunFolder(path)))


def driver(path: Path) -> Slurm:
    return Slurm(told(path), CONFIG, Attempts(3, print), Progress(3, quiet=True), Interrupt())


def test_refusals_count_only_while_no_job_lives(tmp_path: Path) -> None:
    slurm = driver(tmp_path)

    def refuse(_: object) -> None:
        raise NotNow("a limit")

    slurm._jobs.submit = refuse  # type: ignore[assignment]
    for alive in [ONE] * 20 + [{}] * (MOST_REFUSALS - 1) + [ONE] + [{}] * (MOST_REFUSALS - 1):
        slurm._submit(TASKS, 1, alive)
    with pytest.raises(Stopped, match=f"took no job {MOST_REFUSALS} times: a limit"):
        slurm._submit(TASKS, 1, {})


def test_jobs_that_end_before_they_make_a_shard_end_no_run_in_which_others_live(tmp_path: Path) -> None:
    """One bad node, for example; and none is submitted to it for ever."""
    slurm, submitted = driver(tmp_path), list[int]()
    log = tmp_path / "7_0_log.out"
    log.write_text(f"submitit INFO - a\nsd2eval: no worker gets ready: {FAULT}\nsubmitit INFO - b\n")
    slurm._jobs._jobs["7_0"] = SimpleNamespace(paths=SimpleNamespace(stdout=log))
    slurm._jobs.submit = lambda functions: submitted.append(len(functions))  # type: ignore[assignment]
    look = Claims(tmp_path, slurm.assignment.token).look(TASKS)
    for _ in range(20):
        slurm._staff(TASKS, look, ONE)
    assert submitted == [1] * CONFIG.tries
    with pytest.raises(InputError, match="submitted 3 times and ended before a shard was made") as end:
        slurm._staff(TASKS, look, {})
    assert str(end.value).endswith(f"7_0_log.out (sd2eval: no worker gets ready: {FAULT})")


@pytest.mark.parametrize("error", [DeviceLost(FAULT), MemoryError(FAULT)], ids=["device", "memory"])
def test_a_task_that_cannot_start_gives_its_shard_back_and_says_why(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def enlist(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sd2eval.engines.array_task.enlist", enlist)
    look, ends = life(tmp_path, monkeypatch)
    assert not look.claimed
    assert not any(look.failures.values())
    assert ends == []
    assert FAULT in capsys.readouterr().out


@pytest.mark.parametrize("others_work", [True, False])
def test_a_checkpoint_that_does_not_load_in_a_task_is_left_to_one_that_works_on_it(
    others_work: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none does it fails there for each of its shards, without being loaded again."""

    def run(task: Task) -> None:
        raise Unloadable(f"{task.key}: {FAULT}")

    worker = SimpleNamespace(run=run)
    monkeypatch.setattr("sd2eval.engines.array_task.enlist", lambda *_, **__: worker)
    look, _ = life(tmp_path, monkeypatch, TASKS[:1] if others_work else [])
    assert sum(look.failures.values()) == (1 if others_work else len(TASKS) * CONFIG.tries)


def life(
    path: Path, monkeypatch: pytest.MonkeyPatch, claimed: Sequence[Task] = ()
) -> tuple[Any, list[tuple[str, str]]]:
    """Have a task live once in this process, beside another that has claimed some shards.

    Return where the shards stand, and what it ended with.
    """
    monkeypatch.setattr(submitit, "JobEnvironment", lambda: SimpleNamespace(job_id="7_0"))
    ignore: Callable[..., None] = lambda *_: None  # noqa: E731
    monkeypatch.setattr(signal, "signal", ignore)
    run = told(path)
    run.config = SimpleNamespace(device="cpu")
    claims = Claims(path, run.token)
    claims.open()
    for task in claimed:
        claims.take(task, "8_0")
    ArrayTask(run, TASKS, CONFIG, 0)()
    return claims.look(TASKS), claims.ends()
