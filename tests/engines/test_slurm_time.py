"""engine=slurm: a job's time, and a shard that does not fit into it."""

from __future__ import annotations

import time
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sd2eval.config import from_overrides
from sd2eval.engines import submission
from sd2eval.engines.array_task import ArrayTask
from sd2eval.engines.claims import Claims
from sd2eval.plan import Block
from sd2eval.worker import Task


@pytest.mark.parametrize("early", [0, 60], ids=["on time", "a minute early"])
@pytest.mark.parametrize(
    ("minutes", "delay", "start"),
    [(4, 90, 0), (5, 90, 0), (8, 150, 20), (60, 90, 20), (60, 1200, 20), (60, 3000, 20)],
)
def test_a_shard_that_fills_the_time_until_the_signal_has_failed(
    tmp_path: Path, minutes: int, delay: int, start: int, early: int
) -> None:
    words = (f"engine.minutes={minutes}", f"+engine.parameters.signal_delay_s={delay}")
    told = told_to_end(tmp_path, *words, worked=60 * minutes - delay - early - start)
    assert told == f"not made within engine.minutes={minutes}; lower shard_size"


@pytest.mark.parametrize(
    ("words", "worked"),
    [(["engine.minutes=60"], 40 * 60), (["engine.minutes=1", "engine.cluster=local"], 15)],
)
def test_a_shard_that_was_interrupted_before_has_not(tmp_path: Path, words: list[str], worked: float) -> None:
    assert told_to_end(tmp_path, *words, worked=worked) is None


def test_submitit_has_a_job_told_when_it_is_taken_for_granted() -> None:
    from submitit.local.local import start_controller
    from submitit.slurm.slurm import _make_sbatch_string

    delays = [
        signature(made).parameters["signal_delay_s"] for made in (_make_sbatch_string, start_controller)
    ]
    assert [delay.default for delay in delays] == list(submission.SIGNAL_SECONDS.values())


def told_to_end(tmp_path: Path, *words: str, worked: float) -> str | None:
    """Return how a shard has failed when its task is told to end after some seconds; it is given back."""
    config, _ = from_overrides("engine=slurm", *words)
    run: Any = SimpleNamespace(path=tmp_path, token="token")
    claims, task = Claims(tmp_path, "token"), Task("512-base", Block(0, 1), (1.5,))
    claims.open()
    claims.take(task, "7_0")
    job = ArrayTask(run, [task], config.engine, 0)
    job._job, job._held, job._begun = "7_0", task, time.monotonic() - worked
    again = job.checkpoint()
    assert again.function == ArrayTask(run, [task], config.engine, 0, _begun=again.function._begun)
    look = claims.look([task])
    assert not look.claimed
    return claims.reason(task, 1).partition(": ")[2] if look.failures[task] else None
