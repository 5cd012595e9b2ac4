"""Engines: who makes the shards. The durable state is on disk, so any engine continues what another began."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sd2eval.config import EngineConfig
from sd2eval.engines import claims, failed, ray_cluster, submission
from sd2eval.engines.base import Assignment, Attempts, Engine
from sd2eval.engines.local import InProcess, Processes
from sd2eval.engines.ray import actors
from sd2eval.networks import Networks
from sd2eval.progress import Progress
from sd2eval.session import Session
from sd2eval.worker import Worker


def require(config: EngineConfig) -> None:
    """Refuse an engine that cannot work here, before anything begins.

    Raises:
        InputError: says what is missing and what to do.
    """
    if config.name == "slurm":
        submission.require(config)
    if config.name == "ray":
        ray_cluster.require(config)


@contextmanager
def opened(
    config: EngineConfig, assignment: Assignment, networks: Networks, session: Session, progress: Progress
) -> Iterator[Engine]:
    """Open the engine that a config names, and close it whatever happens.

    Raises:
        InputError: its extra is not installed, or its cluster cannot be reached.
    """
    attempts = Attempts(config.tries, progress.print, session.event)
    claims.forget(assignment.path)
    if config.name == "local" and config.workers == 1:
        yield InProcess(_worker(assignment, networks, session), attempts)
        return
    failed.forget(session.store)
    del networks  # the workers load their own; this generator would hold these until it is closed
    gc.collect()
    if assignment.device.type == "cuda":
        torch.cuda.empty_cache()
    if config.name == "ray":
        with actors(config, assignment, attempts, progress, session.interrupt) as engine:
            yield engine
        return
    if config.name == "slurm":
        from sd2eval.engines.slurm import Slurm

        slurm = Slurm(assignment, config, attempts, progress, session.interrupt)
        try:
            yield slurm
        finally:
            slurm.close()
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
