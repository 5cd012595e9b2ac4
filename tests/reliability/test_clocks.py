"""Clocks that jump and files with wrong times: nothing is decided by them."""

from __future__ import annotations

import datetime
import itertools
import os
import time
from pathlib import Path

import pytest

import sd2eval
from sd2eval import events, session, shard, sweep
from sd2eval.errors import Stopped
from sd2eval.run_tables import Run
from sd2eval.store import RunFolder
from sd2eval.verification.verify import verify_run

SMALL = ("experiment=smoke", "prompts.n=6", "shard_size=2", "progress=false")
FAR = {"1970": 0.0, "2100": 4_102_444_800.0}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sd2eval.run_sweep(*SMALL, f"out={tmp_path_factory.mktemp('done') / 'run'}")


def set_times(folder: Path, seconds: float) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (seconds, seconds))


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the wall clock back by a day at each look, wherever the package or a library asks for it."""
    start, looks = time.time(), itertools.count(1)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(time.time(), tz)

    monkeypatch.setattr(time, "time", lambda: start - 86400.0 * next(looks))
    for module in (session, events, sweep):
        monkeypatch.setattr(module, "datetime", Jumping)


@pytest.mark.parametrize("year", FAR)
@pytest.mark.usefixtures("jumping")
def test_a_run_is_resumed_right_whatever_the_clocks_say(
    year: str, done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decode, calls = tmp_path / "run", shard.decode, itertools.count()

    def stops(*arguments: object) -> shard.Pixels:
        if next(calls) == 3:
            raise Stopped("in the middle")
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "decode", stops)
    with pytest.raises(Stopped, match="in the middle"):
        sd2eval.run_sweep(*SMALL, f"out={out}")
    half = {path: path.read_bytes() for path in out.glob("shards/*/*/*")}
    assert len(half) == 6  # three shards
    set_times(out, FAR[year])
    run = sd2eval.run_sweep(*SMALL, f"out={out}")
    assert (run.path / "results.csv").read_bytes() == (done.path / "results.csv").read_bytes()
    assert {path: path.read_bytes() for path in half} == half
    assert verify_run(out).findings == []
    set_times(out, FAR[year])
    stamps = {path: path.stat().st_mtime for path in out.rglob("*.csv")}
    sd2eval.run_sweep(*SMALL, f"out={out}")  # finished, also with these times
    assert {path: path.stat().st_mtime for path in stamps} == stamps


@pytest.mark.usefixtures("jumping")
def test_seconds_and_energy_are_of_a_clock_that_only_goes_forward(tmp_path: Path) -> None:
    run = sd2eval.run_sweep(*SMALL, "checkpoints=[512-base]", f"out={tmp_path / 'run'}")
    assert (run.emissions[["seconds", "kwh"]] > 0).all(axis=None)
    assert run.emissions["seconds"].max() < 60
    found, _ = events.read(run.path)
    monotonic = [event["monotonic"] for event in found]
    assert monotonic == sorted(monotonic)
    assert [event["time"] for event in found] != sorted(event["time"] for event in found)
    assert len(RunFolder(run.path).read_sessions()) == 1
