"""`prompts.n=auto`: cells stop at looks, each when it is precise enough, and say with how many captions."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

import sd2eval
from sd2eval.errors import InputError
from sd2eval.evaluate import complete, emissions
from sd2eval.run_tables import Run
from sd2eval.stopping import looks
from sd2eval.store import RunFolder

FIRST, MOST, TARGET = 16, 40, 0.06
AUTO = ("prompts.n=auto", f"prompts.first={FIRST}", f"prompts.most={MOST}", f"precision.clip_mini={TARGET}")
SMALL = ("experiment=smoke", "images=none", "progress=false", "protocol.metrics=[fd_mini,kid_mini,clip_mini]")


def sweep(out: Path, *overrides: str) -> Run:
    return sd2eval.run_sweep(*SMALL, *overrides, f"out={out}")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sweep(tmp_path_factory.mktemp("auto") / "run", *AUTO, "shard_size=8")


def scores(run: Run, metric: str = "clip_mini") -> pd.DataFrame:
    return run.results[run.results["metric"] == metric].set_index(["checkpoint", "guidance_scale"])


def test_a_cell_stops_at_the_first_look_that_is_precise_enough(done: Run) -> None:
    found = scores(done)
    assert set(found["n"]) <= set(looks(FIRST, MOST))
    assert len(set(found["n"])) > 1  # each cell by itself
    stopped = found[found["n"] < MOST]
    assert len(stopped) > 0
    assert (stopped["stderr"] <= TARGET).all()
    assert (found[found["n"] == MOST]["stderr"] > TARGET * 0.9).all()


def test_an_earlier_look_was_not_precise_enough_and_the_value_is_that_of_a_fixed_number(
    done: Run, tmp_path: Path
) -> None:
    found = scores(done)
    later = found[found["n"] > FIRST]
    assert len(later) > 0
    for n in sorted(set(found["n"]) | {FIRST}):
        fixed = scores(sweep(tmp_path / str(n), f"prompts.n={n}"))
        for cell in found.index[found["n"] == n]:
            assert fixed.loc[cell, "value"] == pytest.approx(found.loc[cell, "value"], rel=1e-4)
            assert fixed.loc[cell, "stderr"] == pytest.approx(found.loc[cell, "stderr"], rel=1e-4)
        for cell in found.index[found["n"] > n]:
            assert fixed.loc[cell, "stderr"] > TARGET


def test_the_decisions_do_not_depend_on_shards_or_on_interruptions(done: Run, tmp_path: Path) -> None:
    other = sweep(tmp_path / "other", *AUTO, "shard_size=7")
    assert list(other.results["n"]) == list(done.results["n"])
    torn = shutil.copytree(done.path, tmp_path / "torn")
    store = RunFolder(torn)
    for checkpoint in ("512-base", "x4-upscaling"):
        for block in store.blocks(checkpoint)[1:]:
            shutil.rmtree(torn / "shards" / checkpoint / block.key)
    (torn / "results.csv").unlink()
    again = sweep(torn, *AUTO, "shard_size=8")
    pd.testing.assert_frame_equal(again.results, done.results)


def test_a_half_finished_run_reports_what_is_finished(done: Run, tmp_path: Path) -> None:
    torn = shutil.copytree(done.path, tmp_path / "torn")
    last = RunFolder(torn).blocks("512-base")[-1]
    shutil.rmtree(torn / "shards" / "512-base" / last.key)
    sd2eval.write_report(torn)
    left = scores(sd2eval.load_run(torn))
    assert 0 < len(left) < len(scores(done))
    whole = scores(done).loc[left.index]
    pd.testing.assert_frame_equal(left, whole)


def test_a_checkpoint_that_lost_a_shard_is_not_complete(done: Run, tmp_path: Path) -> None:
    torn = shutil.copytree(done.path, tmp_path / "torn")
    assert complete(RunFolder(torn), done.info, "512-base")
    first = RunFolder(torn).blocks("512-base")[1]
    shutil.rmtree(torn / "shards" / "512-base" / first.key)
    assert not complete(RunFolder(torn), done.info, "512-base")
    with pytest.raises(InputError, match="512-base is not complete"):
        sd2eval.compare_runs(done.path, torn)


def test_all_energy_is_in_the_cells_that_spent_it(done: Run) -> None:
    store = RunFolder(done.path)
    rows = emissions(store, done.info)
    spent = sum(row["kwh"] for session in store.read_sessions() for row in session["readings"])
    for name in ("512-base", "x4-upscaling"):
        for block in store.blocks(name):
            spent += sum(reading["kwh"] for reading in store.read_manifest(name, block)["energy"])
    assert sum(row.kwh for row in rows) == pytest.approx(spent)
    drawn = {
        (row.checkpoint, row.guidance_scale): row.kwh
        for row in rows
        if row.stage == "sample" and row.checkpoint
    }
    found = scores(done)["n"]
    for name in ("512-base", "x4-upscaling"):
        few, many = found[name].idxmin(), found[name].idxmax()
        assert (drawn[name, few] < drawn[name, many]) == (found[name][few] < found[name][many])


def test_different_n_are_pointed_out(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from sd2eval.report import show

    show(done)
    out = " ".join(capsys.readouterr().out.split())
    assert "FD (mini) depends on n, which is 16 to" in out
    assert "CLIP (mini) depends on n" not in out


def test_a_further_metric_that_depends_on_n_is_pointed_out(done: Run) -> None:
    from sd2eval.tables import further_markdown_tables

    coverage = done.results[done.results["metric"] == "clip_mini"].assign(metric="coverage_mini")
    assert "coverage (mini) depends on n, which is 16 to" in further_markdown_tables(coverage)
    assert "depends on n" not in further_markdown_tables(coverage.assign(n=16))


def test_a_precision_that_was_not_reached_is_said(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from sd2eval.report import show

    found = scores(done)
    asked = sorted(found["stderr"])[1]  # the two that are below it or at it reach it
    strict = dataclasses.replace(done.info, config=done.info.config | {"precision": {"clip_mini": asked}})
    show(done)
    assert "not reached" not in capsys.readouterr().out
    show(dataclasses.replace(done, info=strict))
    out = " ".join(capsys.readouterr().out.split())
    said = f"precision.clip_mini={asked:g} is not reached by 2 of 4 cells"
    assert f"{said} (standard error up to {found['stderr'].max():.2g}): all {MOST} captions are used" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompts.n=auto"], r"prompts.n=auto: say how precise, such as precision.fd_mini=0.3"),
        (["prompts.n=8", "precision.fd_mini=1"], r"precision.fd_mini=1.0: goes with prompts.n=auto only"),
        (["prompts.n=8", "prompts.most=9"], r"prompts.most=9: goes with prompts.n=auto only"),
        (["prompts.n=auto", "precision.fid=1"], r"precision.fid=1.0: not measured; protocol.metrics has"),
        (["prompts.n=auto", "precision.fd_mini=0"], "a finite number above 0"),
        (["prompts.n=auto", "precision.fd_mini=low"], "precision.fd_mini"),
        (["prompts.n=auto", "precision.fd_mini=1", "prompts.first=1"], "prompts.first=1: at least 2"),
        (["prompts.n=many"], "prompts.n=many: allowed: a whole number, or auto"),
        (["prompts.n=2.5"], "prompts.n=2.5: allowed: a whole number, or auto"),
        (["prompts.n=auto", "precision.psnr=1", "protocol.metrics=[fd_mini,psnr]"], "512-base has no psnr"),
    ],
)
def test_a_mistake_is_named(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        sd2eval.run_sweep("experiment=smoke", "progress=false", f"out={tmp_path / 'run'}", *words)
    assert not (tmp_path / "run").exists()
