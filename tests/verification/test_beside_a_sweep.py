"""A sweep goes on and ends while `verify` or `report` reads: nothing is called damaged, moved or made old."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import sd2eval
from sd2eval import evaluate, plots, report, run_tables
from sd2eval.__main__ import main
from sd2eval.errors import InputError
from sd2eval.records import RunInfo
from sd2eval.store import RunFolder, write_bytes
from sd2eval.verification import verify
from tests import damage

LATE = ("000002-000003", "000004-000005")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.make(tmp_path_factory.mktemp("beside") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The state shortly before the end: the last shards, their images and the tables are to come."""
    run = damage.copy(whole, tmp_path / "run")
    for name in LATE:
        shutil.rmtree(run / "shards" / "x4-upscaling" / name)
    captions = [str(prompt["caption_id"]) for prompt in json.loads((run / "prompts.json").read_bytes())]
    for file in run.glob("images/x4-upscaling_*/*.png"):
        if file.stem in captions[2:]:
            file.unlink()
    for name in damage.TABLES:
        (run / name).unlink()
    return run


def end_the_sweep(whole: Path, run: Path) -> None:
    shutil.copytree(whole, run, dirs_exist_ok=True)


def test_a_sweep_that_ends_while_its_shards_are_read_is_not_damaged(
    run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = verify._check_shards

    def slow(*arguments: Any) -> Sequence[Any]:
        found = before(*arguments)  # hours, of a large run
        end_the_sweep(whole, run)
        return found

    monkeypatch.setattr(verify, "_check_shards", slow)
    found = sd2eval.verify_run(run)
    assert found.of("damaged") == []
    assert found.of("left over") == []
    assert not found.was_finished
    monkeypatch.undo()
    assert sd2eval.verify_run(run).findings == []


@pytest.mark.parametrize(
    "look", [lambda store: verify.tables.check_index(store) == [], lambda store: sd2eval.load_run(store.path)]
)
def test_tables_that_are_written_again_while_they_are_compared_are_not_damaged(
    look: Callable[[RunFolder], object], run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_the_sweep(whole, run)
    store, calls = RunFolder(run), 0
    before = run_tables.read_checked

    def overtaken(file: Path, sha256: str | None = None) -> tuple[bytes, str]:
        nonlocal calls
        calls += 1
        if calls == 2:  # after the index: a report with one metric less, whose package was taken away
            run_tables.reopen(store)
            table = write_bytes(run / "emissions.csv", (run / "emissions.csv").read_bytes() + b"\n")
            run_tables.close(store, [run / "results.csv", table])
        return before(file, sha256)

    monkeypatch.setattr(run_tables, "read_checked", overtaken)
    assert look(store)
    assert calls > 2


def test_a_repair_is_refused_before_it_looks_while_a_sweep_writes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_check_shards", lambda *_: pytest.fail("looked without the lock"))
    before = damage.stamps(run)
    with RunFolder(run).lock(), pytest.raises(InputError, match="a sweep is writing here"):
        sd2eval.verify_run(run, repair=True)
    assert damage.changed(before, run) == set()


def test_what_a_repair_finds_is_so_until_it_is_moved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, locked = verify._check_shards, list[bool]()

    def look(*arguments: Any) -> Sequence[Any]:
        try:
            with RunFolder(run).lock():
                locked.append(False)
        except InputError:
            locked.append(True)
        return before(*arguments)

    monkeypatch.setattr(verify, "_check_shards", look)
    damage.flip(run / "shards" / "512-base" / "000002-000003" / "features.npz", 99)
    found = sd2eval.verify_run(run, repair=True)
    assert found.whole
    assert found.repaired
    assert locked[0]


def test_a_repair_leaves_no_lock_where_there_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no run here"):
            sd2eval.verify_run(folder, repair=True)
    assert list(tmp_path.iterdir()) == []


def test_a_report_beside_a_sweep_prints_what_is_there_and_writes_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = damage.stamps(run)
    with RunFolder(run).lock():
        assert main(["report", str(run)]) == 0
        rows = sd2eval.load_run(run).results
    assert set(rows["checkpoint"]) == {"512-base"}
    assert damage.changed(before, run) == set()
    out = capsys.readouterr().out
    assert "512-base" in out
    assert "2 of 4 cells are complete" in out
    assert caplog.messages[0].startswith(f"sd2eval: {run}: a sweep is writing here (host ")
    assert caplog.messages[0].endswith("nothing is written")
    assert main(["report", str(run)]) == 0
    assert (run / "results.csv").exists()


def test_a_report_holds_a_sweep_off_while_it_writes(
    run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, measured = plots.pareto_figure, list[int]()
    count = evaluate.measure

    def beside(*arguments: Any, **more: Any) -> Any:
        with pytest.raises(InputError, match=r"a report is writing here .*; run the same command again"):
            sd2eval.run_sweep(*damage.SMALL, f"out={run}")
        return draw(*arguments, **more)

    monkeypatch.setattr(plots, "pareto_figure", beside)
    monkeypatch.setattr(evaluate, "measure", lambda *run: (measured.append(1), count(*run))[1])
    report.write_report(run)
    assert len(measured) == 1
    monkeypatch.undo()
    sd2eval.run_sweep(*damage.SMALL, f"out={run}")
    assert (run / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_sweep_goes_on_while_a_report_computes_and_the_report_is_of_what_it_left(
    run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = evaluate.measure

    def slow(store: RunFolder, info: RunInfo) -> list[evaluate.Measured]:
        found = measure(store, info)
        monkeypatch.undo()
        with store.lock():  # as a sweep does, which draws the rest
            end_the_sweep(whole, run)
        return found

    monkeypatch.setattr(evaluate, "measure", slow)
    found = report.write_report(run)
    assert set(found.results["checkpoint"]) == {"512-base", "x4-upscaling"}
    assert (run / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert sd2eval.verify_run(run).findings == []


def test_a_session_that_ends_while_a_report_computes_is_in_its_energy(
    run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep was in its last seconds: nothing is drawn any more, only what it spent is written down."""
    end_the_sweep(whole, run)
    (session,) = (run / "sessions").iterdir()
    last = session.read_bytes()
    session.unlink()
    emissions = evaluate.emissions

    def slow(store: RunFolder, info: RunInfo) -> list[Any]:
        found = emissions(store, info)
        session.write_bytes(last)
        return found

    monkeypatch.setattr(evaluate, "emissions", slow)
    report.write_report(run)
    monkeypatch.undo()
    assert sd2eval.verify_run(run).findings == []


def test_a_report_where_nobody_can_lock_is_shown_and_not_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    """The error is the kernel's own, of an `flock` that a mount without them refuses."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = damage.stamps(run)
    monkeypatch.setattr(fcntl, "flock", flock)
    assert main(["report", str(run)]) == 0
    assert damage.changed(before, run) == set()
    (line,) = caplog.messages
    assert "has no file locks (No locks available)" in line
    assert line.endswith("; nothing is written")
    assert "2 of 4 cells are complete" in capsys.readouterr().out


def test_a_file_in_place_of_the_quarantine_is_one_line_and_moves_nothing(run: Path) -> None:
    (run / "quarantine").write_text("mine")
    damage.flip(run / "shards" / "512-base" / "000002-000003" / "features.npz", 99)
    before = damage.stamps(run)
    with pytest.raises(InputError, match=r"quarantine: is no folder; .* rename it"):
        sd2eval.verify_run(run, repair=True)
    assert damage.changed(before, run) == set()
