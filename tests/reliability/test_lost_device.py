"""A GPU that is lost: its process ends, another one makes its shard, it is named, nothing is given up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sd2eval import events
from sd2eval.engines.ray_actor import Actor
from sd2eval.plan import Block
from sd2eval.store import RunFolder
from sd2eval.worker import DeviceLost, Task
from tests.reliability.broken_device import sweep

TWO = ("engine.workers=2",)
ASSERT = "CUDA error: device-side assert triggered"
ECC = "CUDA error: uncorrectable ECC error encountered"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    done = sweep(folder, "progress=false")
    assert done.returncode == 0, done.stderr
    return (folder / "run" / "results.csv").read_bytes()


def named(run: Path, event: str) -> list[dict[str, object]]:
    return [record for record in events.read(run)[0] if record["event"] == event]


def test_workers_that_lose_their_device_or_are_killed_lose_no_shard(whole: bytes, tmp_path: Path) -> None:
    done = sweep(tmp_path, *TWO, faults=(ASSERT, "SIGKILL"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.csv").read_bytes() == whole
    assert "Traceback" not in done.stderr
    (lost,) = named(tmp_path / "run", "device_lost")
    assert (lost["device"], lost["fault"]) == ("cpu", "context")
    reasons = [str(record["reason"]) for record in named(tmp_path / "run", "worker_lost")]
    assert sorted("SIGKILL" in reason for reason in reasons) == [False, True]
    failed = named(tmp_path / "run", "shard_failed")
    begun = [record["shard"] for record in named(tmp_path / "run", "shard_begun")]
    published = [record["shard"] for record in named(tmp_path / "run", "shard_published")]
    assert sorted(begun) == sorted([*published, *(record["shard"] for record in failed)])
    assert len(set(published)) == len(published) == 8
    assert len(named(tmp_path / "run", "worker_started")) > 2  # both got a successor


def test_a_device_that_is_gone_is_left_out_and_named(whole: bytes, tmp_path: Path) -> None:
    done = sweep(tmp_path, *TWO, faults=(ECC,))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.csv").read_bytes() == whole
    assert "its device is left out" in done.stderr
    assert len(named(tmp_path / "run", "worker_started")) == 2
    assert not (tmp_path / "run" / "failed").exists()
    sessions = RunFolder(tmp_path / "run").read_sessions()
    (note,) = [note for session in sessions for note in session["notes"]]
    assert note.startswith("cpu on ")
    assert ECC in note
    assert f"noted: {note}" in " ".join(done.stdout.split())  # the report


def test_where_no_device_is_left_the_run_stops_and_the_same_command_finishes(
    whole: bytes, tmp_path: Path
) -> None:
    done = sweep(tmp_path, "progress=false", faults=(ECC,))
    assert done.returncode == 75, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"AcceleratorError: {ECC}" in line
    assert line.endswith("run the same command again to continue")
    (stopped,) = named(tmp_path / "run", "run_stopped")
    assert ECC in str(stopped["reason"])
    assert not (tmp_path / "run" / "failed").exists()  # no try of the shard: it was the device
    again = sweep(tmp_path, "progress=false")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "results.csv").read_bytes() == whole


def test_a_shard_that_breaks_the_one_process_each_time_is_given_up_by_a_later_command(
    tmp_path: Path,
) -> None:
    """A loop `while code == 75` ends."""
    words = ("prompts.n=4", "shard_size=4", "engine.tries=2", "progress=false")
    ends = [sweep(tmp_path, *words, faults=(ASSERT,) * 2) for _ in range(4)]
    assert [end.returncode for end in ends] == [75, 75, 1, 0], [end.stderr for end in ends]
    (line,) = ends[2].stderr.splitlines()
    assert line.startswith("sd2eval: 1 shard was given up, the others are finished")
    assert ASSERT in line
    begun = [record["shard"] for record in named(tmp_path / "run", "shard_begun")]
    assert begun == [f"{name}/000000-000003" for name in ("512-base", "512-base", "x4-upscaling", "512-base")]
    assert not (tmp_path / "run" / "failed").exists()


def test_an_actor_that_lost_its_device_is_lost_itself() -> None:
    """An answer would keep it, and have its next shards fail as well."""

    def run(task: object) -> None:
        raise DeviceLost(f"{task}: {ECC}")

    actor = Actor()
    worker = SimpleNamespace(session=SimpleNamespace(meter=SimpleNamespace(share=1.0)), run=run)
    actor._worker = worker  # type: ignore[assignment]
    with pytest.raises(DeviceLost, match="uncorrectable ECC"):
        actor.run(Task("512-base", Block(0, 0), (1.5,)), 0.5)
