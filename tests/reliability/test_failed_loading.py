"""What fails while networks load, before or between shards, ends as it does in the middle of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sd2eval import checkpoints, events
from sd2eval.checkpoints.networks import _one_line
from sd2eval.engines.base import Attempts
from sd2eval.engines.local import InProcess
from sd2eval.errors import InputError
from sd2eval.progress import Progress
from sd2eval.worker import DeviceLost
from tests.engines.test_local import TASKS, enlisted
from tests.reliability.broken_device import sweep

MEMORY = "CUDA out of memory. Tried to allocate 1.20 GiB"
ECC = "CUDA error: uncorrectable ECC error encountered"
ASSERT = "CUDA error: device-side assert triggered"
LOCAL = ("engine.workers=2",)
SLURM = ("engine=slurm", "engine.cluster=local", "engine.workers=2", "engine.gpus_per_worker=0")
FEW = ("prompts.n=4", "shard_size=4", "progress=false")
"""A shard of each checkpoint."""


def named(run: Path, event: str) -> list[dict[str, object]]:
    return [record for record in events.read(run)[0] if record["event"] == event]


@pytest.mark.parametrize("engine", [(), LOCAL, SLURM], ids=["alone", "local", "slurm"])
def test_a_checkpoint_that_finds_no_memory_is_given_up_and_the_others_are_finished(
    engine: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*engine, *FEW, "engine.tries=2")
    done = sweep(tmp_path, *words, faults=(MEMORY,) * 2, where="checkpoint")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "sd2eval: 1 shard was given up, the others are finished" in done.stderr
    assert MEMORY in done.stderr
    run = tmp_path / "run"
    assert len(list(run.glob("shards/512-base/0*"))) == 1
    assert "512-base" in (run / "results.csv").read_text()


def test_a_device_that_is_lost_while_a_checkpoint_loads_is_named(tmp_path: Path) -> None:
    done = sweep(tmp_path, *FEW, faults=(ECC,), where="checkpoint")
    assert done.returncode == 75, done.stderr
    (line,) = done.stderr.splitlines()
    assert "x4-upscaling/000000-000003" in line
    assert ECC in line
    (lost,) = named(tmp_path / "run", "device_lost")
    assert lost["fault"] == "gone"


@pytest.mark.parametrize("says", [MEMORY, ECC])
def test_a_driver_whose_device_takes_no_networks_stops_in_one_line_and_goes_on_later(
    says: str, tmp_path: Path
) -> None:
    done = sweep(tmp_path, *FEW, faults=(says,), where="driver")
    assert done.returncode == 75, done.stderr
    (line,) = done.stderr.splitlines()
    assert says in line
    assert "its `source`" not in line  # the file is well
    assert sweep(tmp_path, *FEW, faults=(says,), where="driver").returncode == 0  # it happens once
    assert [lost["fault"] for lost in named(tmp_path / "run", "device_lost")] == ["gone"] * (says == ECC)


def test_a_network_of_a_metric_that_finds_no_memory_gets_fewer_images(tmp_path: Path) -> None:
    done = sweep(tmp_path, *FEW, faults=(MEMORY, MEMORY))
    assert done.returncode == 0, done.stderr
    (plain := tmp_path / "plain").mkdir()
    sweep(plain, *FEW)
    assert (tmp_path / "run/results.csv").read_text() == (plain / "run/results.csv").read_text()
    assert [one["rows"] for one in named(tmp_path / "run", "batch_halved")] == [4, 2]


def test_a_device_that_is_lost_while_a_worker_starts_is_named_and_left_out(tmp_path: Path) -> None:
    done = sweep(tmp_path, *LOCAL, "prompts.n=4", faults=(ASSERT, ECC), where="start")
    assert done.returncode == 0, done.stderr
    assert "its device is left out" in done.stderr
    faults = sorted(str(lost["fault"]) for lost in named(tmp_path / "run", "device_lost"))
    assert faults == ["context", "gone"]


def test_under_slurm_a_device_that_breaks_while_a_task_starts_is_no_try_of_a_shard(tmp_path: Path) -> None:
    done = sweep(tmp_path, *SLURM, *FEW, "engine.tries=2", faults=(ASSERT,), where="start")
    assert done.returncode == 0, done.stderr
    assert len(named(tmp_path / "run", "device_lost")) == 1
    assert not named(tmp_path / "run", "shard_failed")


def test_a_worker_that_finds_no_memory_at_its_start_is_started_again(tmp_path: Path) -> None:
    """Its device is not lost: with a single shard there is a single worker, and it has three starts."""
    done = sweep(tmp_path, *LOCAL, *FEW, "checkpoints=[512-base]", faults=(MEMORY,) * 2, where="start")
    assert done.returncode == 0, done.stderr
    assert len(named(tmp_path / "run", "worker_started")) == 3
    assert len(named(tmp_path / "run", "worker_lost")) == 2
    assert all(MEMORY in str(lost["reason"]) for lost in named(tmp_path / "run", "worker_lost"))
    assert not named(tmp_path / "run", "device_lost")


@pytest.mark.parametrize(("says", "kind"), [(MEMORY, MemoryError), (ECC, DeviceLost)])
def test_whatever_memory_or_the_device_make_of_loading_is_told_apart(
    says: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a mistake of the user, as whom an unreadable file would end the run in every engine."""

    def load(*_: object) -> None:
        raise InputError("cannot load its weights") from RuntimeError(says)

    monkeypatch.setattr("sd2eval.engines.base.load_networks", load)
    with pytest.raises(kind, match=r"cpu on .*cannot load its weights"):
        enlisted(tmp_path / "run", Progress(12, quiet=True))


def test_a_disk_that_is_full_while_workers_start_is_a_stop(tmp_path: Path) -> None:
    done = sweep(tmp_path, *LOCAL, *FEW, faults=("DISK", "DISK"), where="start")
    assert done.returncode == 75, done.stderr
    *_, line = done.stderr.splitlines()
    assert line.startswith("sd2eval: no room on the disk")


def test_a_checkpoint_that_finds_no_memory_is_not_loaded_for_each_of_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, loads, works = enlisted(tmp_path / "run", Progress(12, quiet=True)), list[int](), {3}

    def load(*_: object) -> None:
        loads.append(1)
        if len(loads) not in works:
            raise torch.OutOfMemoryError(MEMORY)

    monkeypatch.setattr(checkpoints, "load", load)
    monkeypatch.setattr(checkpoints, "check_prediction", lambda _: None)
    monkeypatch.setattr(worker, "_make", lambda *_: None)
    attempts = Attempts(3, lambda _: None)
    assert InProcess(worker, attempts).run(TASKS[:2]) == []  # the third attempt was well
    worker._loaded.clear()
    given_up = InProcess(worker, attempts).run(TASKS[2:])
    assert [(failure.task, failure.attempts) for failure in given_up] == [(task, 3) for task in TASKS[2:]]
    assert all(MEMORY in failure.reason and failure.task.key in failure.reason for failure in given_up)
    assert len(loads) == 3 + 3


def test_a_file_is_not_blamed_for_the_device_that_it_is_loaded_onto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads files calls them unreadable whatever happened."""
    worker, cause = enlisted(tmp_path / "run", Progress(12, quiet=True)), RuntimeError(ECC)

    def load(*_: object) -> None:
        with _one_line(Path("a/folder")):
            raise cause

    monkeypatch.setattr(checkpoints, "load", load)
    with pytest.raises(DeviceLost, match="uncorrectable ECC"):
        worker.run(TASKS[0])
    cause = RuntimeError("unexpected end of file")
    with pytest.raises(InputError, match="a/folder: cannot be loaded"):
        worker.run(TASKS[0])
