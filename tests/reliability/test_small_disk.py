"""A disk that is too small is said before the sweep begins, with what it is short of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import sd2eval
from sd2eval import events
from sd2eval.config import from_overrides
from sd2eval.footprint import disk_bytes, shortage
from sd2eval.store import RunFolder

SMALL = ("experiment=smoke", "checkpoints=[512-base]", "shard_size=4", "progress=false")
IMAGES = 16


def with_free(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel's answer about any disk have that many bytes free."""
    before = os.statvfs

    def statvfs(path: str | int) -> os.statvfs_result:
        values = list(before(path))
        values[1], values[4] = 1, free  # f_frsize, f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", statvfs)


def needed() -> int:
    config, _ = from_overrides(*SMALL)
    return int(disk_bytes(config, IMAGES))


def test_the_estimate_is_near_what_a_sweep_writes(tmp_path: Path) -> None:
    run = sd2eval.run_sweep(*SMALL, "prompts.n=64", f"out={tmp_path / 'run'}")
    patterns = ("images/*/*.png", "shards/*/*/features.npz")
    written = sum(file.stat().st_size for pattern in patterns for file in run.path.glob(pattern))
    config, _ = from_overrides(*SMALL)
    assert written / 3 < disk_bytes(config, 128) < 3 * written


@pytest.mark.parametrize(("spare", "said"), [(0, False), (-1, True)])
def test_the_warning_begins_exactly_where_the_room_ends(
    spare: int, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = from_overrides(*SMALL)
    with_free(needed() + spare + (disk_bytes(config, IMAGES) > needed()), monkeypatch)
    assert shutil.disk_usage(tmp_path).free == os.statvfs(tmp_path).f_bavail
    assert bool(shortage(config, IMAGES, tmp_path)) == said


def test_a_sweep_says_it_in_one_line_before_it_begins_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_free(1000, monkeypatch)
    run = sd2eval.run_sweep(*SMALL[:-1], f"out={tmp_path / 'run'}")
    names = [event["event"] for event in events.read(run.path)[0]]
    assert names.index("warning") < names.index("weights_ready") < names.index("shard_begun")
    (session,) = RunFolder(run.path).read_sessions()
    (note,) = session["notes"]
    assert "has 1.0 kB free, about " in note
    assert "images=grid" in note
    assert note in " ".join(capsys.readouterr().err.split())


def test_what_is_there_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sd2eval.run_sweep(*SMALL, f"out={tmp_path / 'run'}")
    (tmp_path / "run" / "report.json").unlink()  # so that it is looked at again
    with_free(0, monkeypatch)
    run = sd2eval.run_sweep(*SMALL, f"out={tmp_path / 'run'}")
    assert "warning" not in [event["event"] for event in events.read(run.path)[0]]
