"""Whether an engine can work from here, without starting or submitting anything."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sd2eval.config import from_overrides
from sd2eval.doctor.engine import engine
from sd2eval.doctor.examine import run_doctor
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from tests.engines import fake_slurm


def found(*words: str) -> list[Finding]:
    return list(engine(from_overrides(*words)[0].engine, Path("runs/one")))


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of somebody who listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    return tmp_path / "bin"


def test_the_local_engine_needs_nothing() -> None:
    (one,) = found("engine.workers=2")
    assert (one.level, one.found) == (OK, "local: 2 workers")


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_extra_that_is_not_installed_is_a_problem(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (one,) = found(f"engine={name}")
    assert one.level == PROBLEM
    assert f'pip install "sd2eval[{name}]"' in one.found


def test_a_cluster_of_ray_that_is_started_for_the_run_needs_ray_only() -> None:
    pytest.importorskip("ray")
    (one,) = found("engine=ray")
    assert (one.level, one.about) == (OK, "ray")


def test_an_address_of_ray_is_tried(listener: str) -> None:
    pytest.importorskip("ray")
    one, folder = found("engine=ray", f"engine.address={listener}")
    assert (one.level, one.found.endswith(f"somebody listens at {listener}")) == (OK, True)
    assert f"all nodes must see {Path('runs/one').absolute()}" in folder.found
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        (one,) = found("engine=ray", f"engine.address={nobody}")
    assert one.level == PROBLEM
    assert f"engine.address={nobody}: no Ray cluster answers there" in one.found


def test_auto_is_what_the_environment_names_or_what_runs_here(
    listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", listener)
    one, _ = found("engine=ray", "engine.address=auto")
    assert (one.level, listener in one.found) == (OK, True)
    monkeypatch.delenv("RAY_ADDRESS")

    def nobody(*_: object) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray._private.services.get_ray_address_from_environment", nobody)
    one, _ = found("engine=ray", "engine.address=auto")
    assert (one.level, "finds no cluster" in one.found) == (PROBLEM, True)


def test_without_slurm_it_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    (one,) = found("engine=slurm")
    assert (one.level, "sbatch is not found" in one.found) == (PROBLEM, True)
    (one,) = found("engine=slurm", "engine.cluster=local")
    assert one.level == OK


def test_slurm_is_asked_whether_it_answers(slurm: Path) -> None:
    pytest.importorskip("submitit")
    one, _ = found("engine=slurm")
    assert (one.level, str(slurm / "sbatch") in one.found) == (OK, True)
    (slurm / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: no controller' >&2; exit 1\n")
    one, _ = found("engine=slurm")
    assert (one.level, one.found) == (WARNING, "squeue: slurm_load_jobs error: no controller")


def test_the_doctor_has_it_as_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    told = run_doctor("engine=slurm", f"out={tmp_path / 'run'}")
    (one,) = [finding for finding in told.findings if finding.check == "engine"]
    assert (one.level, told.healthy) == (PROBLEM, False)
