"""Shards that were given up, or broke their process: records in the run folder, until the next attempt."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from sd2eval.engines.base import Failure
from sd2eval.store import FAILED, RunFolder
from sd2eval.worker import Task

TRIES = ".tries"
"""Ends the name of the record of a shard that broke the device of the run's one process, and ended it."""


def write(store: RunFolder, failure: Failure) -> None:
    """Record a shard that was given up."""
    store.write_json(
        f"{FAILED}/{_stem(failure.task)}.json",
        {
            "checkpoint": failure.task.checkpoint,
            "captions": [failure.task.block.first, failure.task.block.last],
            "guidance_scales": list(failure.task.scales),
            "attempts": failure.attempts,
            "reason": failure.reason,
        },
    )


def clear(store: RunFolder) -> None:
    """Forget what an earlier attempt gave up: all of it is tried again."""
    _remove(store, store.path.glob(f"{FAILED}/*.json"))


def forget(store: RunFolder) -> None:
    """Forget also which shards broke their process: workers are others, and can be lost one by one."""
    shutil.rmtree(store.path / FAILED, ignore_errors=True)


def tried(store: RunFolder, task: Task) -> list[str]:
    """Return why a shard broke the processes of earlier commands."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_tries(store, task).read_text())
        if isinstance(found, list) and all(isinstance(reason, str) for reason in found):
            return found
    return []


def note_try(store: RunFolder, task: Task, reason: str) -> None:
    """Record that a shard breaks this process, which cannot try again itself."""
    store.write_json(f"{FAILED}/{_stem(task)}{TRIES}", [*tried(store, task), reason])


def forget_tries(store: RunFolder, task: Task) -> None:
    """Forget it: the shard is made, or given up."""
    _remove(store, [_tries(store, task)])


def settle(store: RunFolder) -> None:
    """Forget it of all, when each shard is made or given up: one may have had another `shard_size`."""
    _remove(store, store.path.glob(f"{FAILED}/*{TRIES}"))


def _tries(store: RunFolder, task: Task) -> Path:
    return store.path / FAILED / f"{_stem(task)}{TRIES}"


def _remove(store: RunFolder, files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        (store.path / FAILED).rmdir()


def _stem(task: Task) -> str:
    return f"{task.checkpoint}-{task.block.key}"


def sentence(store: RunFolder, failures: Sequence[Failure]) -> str:
    """Return in one line what is missing, and why."""
    shards = "1 shard was" if len(failures) == 1 else f"{len(failures)} shards were"
    return (
        f"{shards} given up, the others are finished (first: {failures[0].reason}); see "
        f"{store.path / FAILED}, and run the same command again to try once more"
    )
