"""Shards that were given up: a record of each in the run folder, until the next attempt."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from sd2eval.engines.base import Failure
from sd2eval.store import FAILED, RunFolder


def write(store: RunFolder, failure: Failure) -> None:
    """Record a shard that was given up."""
    store.write_json(
        f"{FAILED}/{failure.task.checkpoint}-{failure.task.block.key}.json",
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
    shutil.rmtree(store.path / FAILED, ignore_errors=True)


def sentence(store: RunFolder, failures: Sequence[Failure]) -> str:
    """Return in one line what is missing, and why."""
    shards = "1 shard was" if len(failures) == 1 else f"{len(failures)} shards were"
    return (
        f"{shards} given up, the others are finished (first: {failures[0].reason}); see "
        f"{store.path / FAILED}, and run the same command again to try once more"
    )
