"""engine=local: several processes of this machine, and what belongs to no other engine."""

from __future__ import annotations

import gc
import os
import queue
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import sd2eval
from sd2eval import engines
from sd2eval.checkpoints import find_weights
from sd2eval.config import EngineConfig, from_overrides
from sd2eval.dataset import load_dataset
from sd2eval.energy import EnergyMeter
from sd2eval.engines import process
from sd2eval.engines.base import Assignment, check_token, enlist, take
from sd2eval.engines.local import Processes
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.mini import DATA
from sd2eval.networks import Networks, load_networks
from sd2eval.plan import Block
from sd2eval.progress import Progress
from sd2eval.session import Session
from sd2eval.store import RunFolder
from sd2eval.worker import ShardFailed, Task, Worker
from tests.engines.commands import ROOT, SMALL, Command, Result, result
from tests.engines.contract import HERE, Contract

CPU = torch.device("cpu")
TWO = ("engine=local", "engine.workers=2")


def assignment(out: Path, **other: Any) -> Assignment:
    """Return what a driver of a small run would tell its workers, of weights that are not looked for."""
    config, definitions = from_overrides(*SMALL, f"out={out}")
    given: dict[str, Any] = {
        "config": config,
        "definitions": {definition.name: definition for definition in definitions},
        "weights": {},
        "dataset": load_dataset(config.data, config.prompts, definitions),
        "path": out,
        "device": CPU,
        "dtype": "float32",
        "digests": {},
        "token": take(RunFolder(out)),
    }
    return Assignment(**given | other)


def processes(out: Path, **other: Any) -> tuple[Processes, list[str]]:
    """Return the engine and what it says."""
    said: list[str] = []
    progress = Progress(12, quiet=True)
    attempts = engines.Attempts(3, said.append)
    return Processes(assignment(out, **other), 2, attempts, progress, Interrupt()), said


def enlisted(out: Path, display: Progress) -> Worker:
    """Return a worker of a small run in this process."""
    return enlist(assignment(out, **found()), CPU, display, Interrupt(), 0.5)


def found() -> dict[str, Any]:
    """Return what an assignment has of weights that were looked for."""
    config, definitions = from_overrides(*SMALL)
    digests = load_networks(config.protocol, definitions, CPU).digests
    return {"digests": digests, "weights": {one.name: find_weights(one) for one in definitions}}


TASKS = [Task("512-base", Block(number, number), (1.5, 3.0)) for number in range(6)]


def test_where_no_worker_gets_ready_the_run_stops_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libcudart.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(broken.parent))
    engine, said = processes(tmp_path / "run")
    try:
        with pytest.raises(Stopped, match=r"no worker gets ready: worker \d ended with exit code 1") as end:
            engine.run(TASKS)
    finally:
        engine.close()
    assert "libcudart.so: cannot open" in str(end.value)
    assert "\n" not in str(end.value)
    assert len(said) == 1  # of the other worker
    assert "the others go on" in said[0]


def test_a_worker_with_other_weights_is_refused(tmp_path: Path) -> None:
    engine, _ = processes(tmp_path / "run", digests={"extractor/score": "0" * 64})
    try:
        with pytest.raises(InputError, match="other weights than its driver"):
            engine.run(TASKS)
    finally:
        engine.close()


def test_nothing_is_published_for_a_driver_that_lost_the_folder(tmp_path: Path, undisturbed: Result) -> None:
    worker = enlisted(tmp_path / "run", Progress(12, quiet=True))
    worker.run(TASKS[0])
    store = RunFolder(tmp_path / "run")
    assert store.blocks("512-base") == [Block(0, 0)]
    (manifest,) = store.read_manifest("512-base", Block(0, 0))["images"][:1]
    assert manifest["sha256"] in {image[2] for image in undisturbed.images["512-base"]}
    pictures = set((tmp_path / "run").rglob("*.png"))
    take(store)
    with pytest.raises(Stopped, match="another process has taken over"):
        worker.run(TASKS[1])
    assert store.blocks("512-base") == [Block(0, 0)]
    assert set((tmp_path / "run").rglob("*.png")) == pictures


def test_a_run_folder_that_is_gone_stops_its_workers(tmp_path: Path) -> None:
    token = take(RunFolder(tmp_path))
    check_token(tmp_path, token)
    (tmp_path / ".writer").unlink()
    with pytest.raises(Stopped, match="is gone"):
        check_token(tmp_path, token)


def test_the_display_counts_no_image_of_a_shard_that_failed(tmp_path: Path) -> None:
    shown: list[int] = []

    class Display(Progress):
        def advance(self, images: int, captions: int = 0) -> None:
            shown.append(images)

    worker = enlisted(tmp_path / "run", Display(12, quiet=True))
    (tmp_path / "run" / "images").write_text("where a folder belongs")
    with pytest.raises(ShardFailed, match="512-base/000000-000000"):
        worker.run(TASKS[0])
    assert max(shown) > 0
    assert sum(shown) == 0


def test_the_drivers_networks_are_released_while_others_work(tmp_path: Path) -> None:
    told = assignment(tmp_path / "run")
    session = Session(EnergyMeter(), RunFolder(tmp_path), Progress(1, quiet=True), Interrupt())
    networks = Networks({}, [])
    held = weakref.ref(networks)
    config = EngineConfig(name="local", workers=2, tries=3)
    with engines.opened(config, told, networks, session, Progress(1, quiet=True)):
        del networks
        gc.collect()
        assert held() is None


def test_more_workers_than_shards_are_as_many_as_there_are_shards_and_energy_adds_up(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    run = sd2eval.run_sweep(
        *SMALL, "prompts.n=2", "shard_size=2", "engine.workers=7", f"out={out}", "progress=false"
    )
    store = RunFolder(out)
    sessions = store.read_sessions()
    assert len(sessions) in (
        2,
        3,
    )  # the driver's, and one per shard, unless one made both while the other began
    readings = [row for session in sessions for row in session["readings"]]
    for name in ("512-base", "x4-upscaling"):
        blocks = store.blocks(name)
        readings += [row for block in blocks for row in store.read_manifest(name, block)["energy"]]
    for column in ("seconds", "kwh", "kg_co2"):
        assert run.emissions[column].sum() == pytest.approx(sum(row[column] for row in readings), rel=1e-12)
    setups = [row["kwh"] for session in sessions for row in session["readings"] if row["stage"] == "setup"]
    assert len(setups) == len(sessions)
    assert min(setups) > 0


def test_a_look_with_more_shards_than_the_one_before_has_more_workers(tmp_path: Path) -> None:
    engine, _ = processes(tmp_path / "run", **found())
    try:
        for look, workers in ((TASKS[:1], 1), (TASKS[1:4], 2), (TASKS[4:5], 2)):
            assert engine.run(look) == []
            assert len(engine._hands) == workers
    finally:
        engine.close()


def test_a_worker_has_its_part_of_the_look_that_a_task_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the energy and, on a CPU, of the threads: one of two, then one of four, then alone."""
    counts, seen = [2, 4, 1], []
    worker: Any = SimpleNamespace(session=SimpleNamespace(meter=SimpleNamespace(share=0.0)))

    def run(task: Task) -> None:
        seen.append((worker.session.meter.share, torch.get_num_threads()))
        if len(seen) == len(counts):
            raise Stopped("enough")

    worker.run = run
    monkeypatch.setattr(process, "enlist", lambda *_: worker)
    tasks: queue.SimpleQueue[tuple[Task, int]] = queue.SimpleQueue()
    for task, count in zip(TASKS, counts, strict=False):
        tasks.put((task, count))
    pipe: Any = SimpleNamespace(send=lambda message: None)
    told: Any = SimpleNamespace(config=SimpleNamespace(device="cpu"))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with pytest.raises(Stopped, match="enough"):
            process._serve(pipe, process.Place(told, 0, 2), tasks)
    finally:
        torch.set_num_threads(before)
    assert seen == [(0.5, 2), (0.25, 1), (1.0, 4)]


def test_a_script_without_a_guard_can_use_several_processes(tmp_path: Path, undisturbed: Result) -> None:
    """Workers do not run the user's script again."""
    words = [*SMALL, *TWO, f"data.root={DATA}", f"out={tmp_path / 'run'}", "progress=false"]
    code = f"import sd2eval\nprint('once')\nsd2eval.run_sweep(*{words})\n"
    (tmp_path / "script.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")
    assert result(tmp_path / "run") == undisturbed


def test_workers_share_the_cores(tmp_path: Path) -> None:
    """Two workers on four threads take two each, whatever the machine has."""
    place = "from sd2eval.engines.process import Place, _serve; import torch; torch.set_num_threads(4)"
    told = "Place(SimpleNamespace(config=SimpleNamespace(device='cpu')), 0, 2)"
    code = f"""
from types import SimpleNamespace
{place}
try:
    _serve(None, {told}, None)
except AttributeError:
    print(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"


def test_one_process_gives_up_a_poison_shard_too(tmp_path: Path, undisturbed: Result) -> None:
    suite = type("Here", (Contract,), {"words": HERE, "worker": "-"})()
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    suite.test_a_shard_that_fails_in_every_worker_is_given_up_and_the_others_finish(undisturbed, data)


@pytest.mark.parametrize(
    ("word", "said"),
    [("engine.workers=0", "engine.workers"), ("engine=nope", "engine"), ("engine.tries=0", "tries")],
)
def test_senseless_settings_are_refused_in_one_line(word: str, said: str, tmp_path: Path) -> None:
    with Command(tmp_path / "run", (*SMALL, word), "-") as command:
        assert command.ends() == 2
        (line,) = command.log.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()
