"""Engines: who makes the shards. The durable state is on disk, so any engine continues what another began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sd2eval.config import EngineConfig
from sd2eval.engines.base import Assignment, Attempts, Engine
from sd2eval.engines.local import InProcess, Processes
from sd2eval.engines.ray import actors
from sd2eval.networks import Networks
from sd2eval.progress import Progress
from sd2eval.session import Session
from sd2eval.worker import Worker


@contextmanager
def opened(
    config: EngineConfig, assignment: Assignment, networks: Networks, session: Session, progress: Progress
) -> Iterator[Engine]:
    """Open the engine that a config names, and close it whatever happens.

    Raises:
        InputError: its extra is not installed, or its cluster cannot be reached.
    """
    attempts = Attempts(config.tries, progress.print)
    if config.name == "ray":
        with actors(config, assignment, attempts, progress, session.interrupt) as engine:
            yield engine
        return
    if config.name == "slurm":
        from sd2eval.engines.slurm import Slurm
        from sd2eval.engines.submission import require

        require(config)
        slurm = Slurm(assignment, config, attempts, progress, session.interrupt)
        try:
            yield slurm
        finally:
            slurm.close()
        return
    if config.workers == 1:
        yield InProcess(_worker(assignment, networks, session), attempts)
        return
    assert config.workers is not None  # `rules` sees to it
    processes = Processes(assignment, config.workers, attempts, progress, session.interrupt)
    try:
        yield processes
    finally:
        processes.close()


def _worker(assignment: Assignment, networks: Networks, session: Session) -> Worker:
    return Worker(
        config=assignment.config,
        definitions=assignment.definitions,
        weights=assignment.weights,
        dataset=assignment.dataset,
        networks=networks,
        device=assignment.device,
        dtype=assignment.dtype,
        session=session,
    )
