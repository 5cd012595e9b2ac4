"""Whether the engine can work from here: its packages, its commands, its cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from sd2eval.errors import InputError

if TYPE_CHECKING:
    from sd2eval.config import EngineConfig

ADVICE = "docs/clusters.md says what an engine needs; engine=local needs nothing"
COMMAND = ("squeue", "--me", "--noheader", "--format=%F %K %T")
SLURM_SECONDS = 5


def engine(config: EngineConfig, folder: Path) -> Iterator[Finding]:
    """Say whether an engine can be opened; nothing is started or submitted.

    Args:
        config: names it.
        folder: the run folder, or the one that it will be made in.
    """
    from sd2eval import engines

    try:
        engines.require(config)
    except InputError as error:
        yield Finding("engine", PROBLEM, str(error), ADVICE, about=config.name)
        return
    if config.name == "ray":
        yield from _ray(config)
    elif config.name == "slurm":
        yield from _slurm(config)
    else:
        workers = "1 worker, this process" if config.workers == 1 else f"{config.workers} workers"
        yield Finding("engine", OK, f"local: {workers}", about="local")
    if config.address is not None or (config.name == "slurm" and config.cluster == "slurm"):
        found = f"all nodes must see {folder.absolute()} as this one does, which cannot be seen from here"
        advice = "a worker that does not see it stops the run and names its node"
        yield Finding("engine", OK, found, advice, about="run folder")


def _ray(config: EngineConfig) -> Iterator[Finding]:
    here = f"ray {version('ray')}"
    if config.address is None:
        yield Finding("engine", OK, f"{here}: a cluster is started on this machine for the run", about="ray")
        return
    from sd2eval.engines import ray_cluster

    found = ray_cluster.running(config.address)
    if found is None:
        text = f"{here}: engine.address={config.address} finds no cluster on this machine now"
        advice = "ray start --head, or name one by engine.address=HOST:PORT or RAY_ADDRESS"
        yield Finding("engine", PROBLEM, text, advice, about="ray")
    else:
        yield Finding("engine", OK, f"{here}: somebody listens at {found}", about="ray")


def _slurm(config: EngineConfig) -> Iterator[Finding]:
    here = f"submitit {version('submitit')}"
    if config.cluster == "local":
        yield Finding("engine", OK, f"{here}: processes of this machine instead of jobs", about="slurm")
        return
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SLURM_SECONDS, check=False)
        fault = " ".join(done.stderr.split()) if done.returncode else ""
    except subprocess.TimeoutExpired:
        fault = f"it does not answer within {SLURM_SECONDS} s"
    if fault:
        advice = "ask whoever runs the cluster; a sweep waits until it answers"
        yield Finding("engine", WARNING, f"squeue: {fault}", advice, about="slurm")
    else:
        yield Finding("engine", OK, f"{here}: {shutil.which('sbatch')}, squeue answers", about="slurm")
