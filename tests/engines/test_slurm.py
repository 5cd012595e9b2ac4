"""engine=slurm: real processes under submitit's local executor, and real sbatch files under a small Slurm."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sd2eval
from sd2eval.engines import submission
from sd2eval.errors import InputError, Stopped, Unfinished
from sd2eval.mini import DATA
from sd2eval.run_tables import Run
from sd2eval.store import RunFolder
from tests.engines import commands, fake_slurm
from tests.engines.commands import Command, Result, published, result
from tests.engines.contract import Contract

ROOT = Path(__file__).parents[2]
SMALL = ("experiment=smoke", "checkpoints=[512-base]", "prompts.n=6", "shard_size=2", "batch_size=4")
HERE = ("engine=slurm", "engine.cluster=local", "engine.workers=2", "engine.gpus_per_worker=0")
KEYS = [f"512-base/{first:06d}-{first + 1:06d}" for first in (0, 2, 4)]


class TestSlurm(Contract):
    words = HERE
    worker = r"submitit\.core\._submit"
    fewest = ("engine.workers=1",)


def sweep(out: Path, *overrides: str) -> Run:
    return sd2eval.run_sweep(*SMALL, "progress=false", f"out={out}", *overrides)


@pytest.fixture(scope="module", autouse=True)
def this_checkout() -> Iterator[None]:
    """Jobs find the code that is tested, whatever is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sweep(tmp_path_factory.mktemp("done") / "run")


def images(out: Path) -> list[object]:
    store = RunFolder(out)
    manifests = [store.read_manifest("512-base", block) for block in store.blocks("512-base")]
    return [(image["caption_id"], image["sha256"]) for one in manifests for image in one["images"]]


def assert_same(out: Path, done: Run) -> None:
    assert images(out) == images(done.path)
    assert (out / "results.csv").read_bytes() == (done.path / "results.csv").read_bytes()
    assert not (out / "claims").exists()


def logs(out: Path) -> str:
    return "".join(file.read_text() for file in sorted(out.glob("slurm/*log.out")))


def begun(out: Path) -> list[str]:
    """Return the shards that jobs began, by their logs."""
    return re.findall(r"sd2eval: (512-base/\d+-\d+)$", logs(out), re.MULTILINE)


def claim(out: Path) -> dict[str, Any] | None:
    for file in out.glob("claims/*/*.claim"):
        with suppress(FileNotFoundError, ValueError):  # it goes and comes
            return dict(json.loads(file.read_text()), file=file.name)
    return None


def until(find: Callable[[], Any], seconds: float = 200) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


class Meanwhile(threading.Thread):
    """Does something as soon as something is there."""

    def __init__(self, find: Callable[[], Any], act: Callable[[Any], None]) -> None:
        super().__init__(daemon=True)
        self.find, self.act, self.acted = find, act, False

    def run(self) -> None:
        self.act(until(self.find))
        self.acted = True

    def __enter__(self) -> Meanwhile:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.join(60)
        assert self.acted


def test_a_shard_that_kills_every_task_is_given_up(tmp_path: Path) -> None:
    out, killed = tmp_path / "run", set()

    def first_shard() -> Any:
        found = claim(out)
        return found if found and "000000" in found["file"] and found["process"] not in killed else None

    def kill(found: Any) -> None:
        os.kill(found["process"], signal.SIGKILL)
        killed.add(found["process"])
        if len(killed) < 2:
            kill(until(first_shard))

    with Meanwhile(first_shard, kill), pytest.raises(Unfinished, match="1 shard was given up"):
        sweep(out, *HERE, "engine.workers=1", "engine.tries=2")
    record = json.loads((out / "failed" / "512-base-000000-000001.json").read_text())
    assert record["attempts"] == 2
    assert re.search(r"its worker, job \d+, ended, see .*log.out", record["reason"])
    assert len(RunFolder(out).blocks("512-base")) == 2


def test_jobs_that_never_make_a_shard_end_the_run_and_name_their_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"submitted 2 times and ended before a shard was made.*log\.out"):
        sweep(tmp_path / "run", *HERE, "engine.python=false", "engine.tries=2")


def test_without_submitit_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r'pip install "sd2eval\[slurm\]"'):
        sweep(tmp_path / "run", *HERE)


def test_without_slurm_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no Slurm on this machine \(sbatch is not found\).*cluster=local"):
        sweep(tmp_path / "run", "engine=slurm")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["engine.partition=gpu"], "engine.partition=gpu: only engine=slurm has it"),
        (["engine=slurm", "engine.cluster=pbs"], "engine.cluster=pbs: allowed: slurm, local"),
        (["engine=slurm", "engine.minutes=0"], "engine.minutes=0: at least 1"),
        (["engine=slurm", "engine.minutes=3"], "90 seconds before and may need 90 more; at least 4"),
        (
            ["engine=slurm", "engine.minutes=20", "+engine.parameters.signal_delay_s=1200"],
            "engine.minutes=20: leaves no time to make a shard, since a job is told to end 1200 seconds",
        ),
        (["engine=slurm", "+engine.parameters.signal_delay_s=x"], "a whole number of seconds is needed"),
        (["engine=slurm", "+engine.parameters.time=60"], "engine.parameters.time: a task's time limit is"),
        (["engine=slurm", "engine.gpus_per_worker=-1"], "engine.gpus_per_worker=-1: at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(
    tmp_path: Path, overrides: list[str], line: str
) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        sweep(tmp_path / "run", *overrides)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster of this machine; returns its folder."""
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setitem(submission.ASK_SECONDS, "slurm", 0.2)  # whoever imported it waits so long only
    return tmp_path


THERE = ("engine=slurm", "engine.workers=2", "engine.gpus_per_worker=0")


def test_under_slurm_it_is_one_array_with_the_options_that_were_asked_for(done: Run, slurm: Path) -> None:
    out = slurm / "run"
    extra = ("engine.partition=cpu", "engine.memory=4G", "+engine.parameters.qos=low", "engine.minutes=30")
    sweep(out, *THERE, *extra, "+engine.parameters.requeue=true", "engine.cpus_per_worker=2")
    assert_same(out, done)
    assert sorted(begun(out)) == KEYS
    (script,) = slurm.glob("*.sh")
    lines = script.read_text().splitlines()
    options = {"array=0-1%2", "partition=cpu", "mem=4G", "qos=low", "time=30", "requeue", "cpus-per-task=2"}
    assert {f"#SBATCH --{option}" for option in options} <= set(lines)
    assert not any("gpus" in line for line in lines)


def test_preempted_it_is_requeued_and_cancelled_it_is_submitted_again(done: Run, slurm: Path) -> None:
    """Each time the shard is given back: with `tries=1` a failure would be final."""
    out = slurm / "run"

    def preempt(found: Any) -> None:
        os.kill(found["process"], signal.SIGUSR2)
        again = until(lambda: (claim(out) or found)["process"] != found["process"] and claim(out))
        subprocess.run(["scancel", again["job"]], check=True)

    with Meanwhile(lambda: claim(out), preempt):
        sweep(out, *THERE, "engine.workers=1", "engine.tries=1")
    assert_same(out, done)
    assert "sd2eval: requeued" in logs(out)
    assert "sd2eval: ended by SIGTERM" in logs(out)
    assert len(list(slurm.glob("*.sh"))) == 2


def test_the_tasks_of_a_killed_driver_go_on_and_the_same_command_takes_over(
    undisturbed: Result, slurm: Path
) -> None:
    """Not so where they are processes of this machine, see the contract."""
    out = slurm / "run"
    words = (*commands.SMALL, f"data.root={DATA}", *THERE)
    with Command(out, words, TestSlurm.worker) as command:
        command.until_working("shards/*/0*")
        command.process.kill()
        command.until(lambda: len(published(out)) == 12)
        kept = published(out)
        command.until(lambda: not command.members())
        with Command(out, words, TestSlurm.worker) as again:
            assert again.ends() == 0, again.log
    assert published(out) == kept
    assert result(out) == undisturbed
    assert not (out / "claims").exists()
    assert len(list(slurm.glob("*.sh"))) == 1


def test_what_sbatch_refuses_is_the_users_line(slurm: Path) -> None:
    with pytest.raises(InputError, match="invalid partition specified: nowhere"):
        sweep(slurm / "run", *THERE, "engine.partition=nowhere")


def test_while_slurm_takes_no_job_those_that_live_go_on_and_it_is_asked_again(
    done: Run, slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task of the first array is cancelled, and its successor refused for a while, with none alive."""
    monkeypatch.setattr("sd2eval.engines.slurm.MOST_REFUSALS", 10**6)  # however late it is taken back
    out, refuses = slurm / "run", slurm / "refuses"

    def cancel(found: Any) -> None:
        refuses.touch()
        subprocess.run(["scancel", found["job"]], check=True)
        until(lambda: len(refuses.read_text().splitlines()) > 2)
        refuses.unlink()

    with Meanwhile(lambda: claim(out), cancel):
        sweep(out, *THERE, "engine.workers=1", "progress=true")
    assert_same(out, done)
    assert capsys.readouterr().err.count("Slurm takes no job now") == 1


def test_where_slurm_takes_no_job_any_more_the_run_stops(slurm: Path) -> None:
    def cancel(found: Any) -> None:
        (slurm / "refuses").touch()
        subprocess.run(["scancel", found["job"]], check=True)

    stop = pytest.raises(Stopped, match=r"Slurm took no job 8 times: .*Socket timed out")
    with Meanwhile(lambda: claim(slurm / "run"), cancel), stop:
        sweep(slurm / "run", *THERE, "engine.workers=1")
    assert len((slurm / "refuses").read_text().splitlines()) == 8


def test_a_gpu_that_a_task_was_promised_and_has_not_is_an_error(slurm: Path) -> None:
    with pytest.raises(InputError, match=r"engine\.gpus_per_worker=1: job 1000\w* finds no GPU"):
        sweep(slurm / "run", "engine=slurm", "engine.workers=1", "device=auto", "dtype=float32")
