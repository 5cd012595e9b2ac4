"""Run folders written by hand, with scores at known distances from the card's figure."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sd2eval
from sd2eval.__main__ import main
from sd2eval.errors import InputError
from sd2eval.reproduction import card, reproduce
from tests.card_runs import (
    BASE,
    CURVES,
    OLD,
    STDERR,
    V,
    protocol,
    record,
    scores,
    shown,
    write,
)


def mini(tmp_path: Path) -> Path:
    info = protocol(name="mini", metrics=["fd_mini", "kid_mini", "clip_mini"], resolution=64)
    names = {"fid": "fd_mini", "clip_score": "clip_mini"}
    rows = (dataclasses.replace(row, metric=names[row.metric], n=64) for row in scores([BASE]))
    return write(tmp_path / "mini", info, rows)


def test_a_mini_run_is_told_what_to_run_instead(tmp_path: Path) -> None:
    result = sd2eval.reproduce_run(mini(tmp_path))
    assert result.verdict == "not comparable"
    assert "sweep experiment=model_card" in result.sentence
    assert set(result.points["reason"]) == {
        "mini (fd_mini is not FID)",
        "mini (clip_mini is not the CLIP score)",
    }


# By simulation: what the level promises


def judged(shift: float, seed: int) -> bool:
    """Whether a repeated study, shifted in FID, passes against a card that had sampling noise of its own."""
    rng = np.random.default_rng(seed)
    points = CURVES.melt(["checkpoint", "label", "guidance_scale"], ["fid", "clip_score"], "metric", "truth")
    points["stderr"] = points["metric"].map(STDERR)
    common = rng.normal(size=(2, 2))  # the points of one study share their captions
    share = 0.8
    for study, column in enumerate(("published", "measured")):
        noise = rng.normal(size=len(points))
        shared = np.where(points["metric"] == "fid", common[study, 0], common[study, 1])
        drawn = np.sqrt(share) * shared + np.sqrt(1 - share) * noise
        points[column] = points["truth"] + points["stderr"] * drawn
    read = rng.uniform(-1, 1, len(points)) * points["metric"].map(card.READING_ERROR)
    points["published"] += read
    points["measured"] += shift * (points["metric"] == "fid")
    points = points.assign(n=10_000, reason="")
    verdicts = reproduce.judge(points, {"fid": 0.0, "clip_score": 0.0})["verdict"]
    return bool((verdicts == "reproduced").all())


def test_a_true_reproduction_passes_as_often_as_promised() -> None:
    passed = sum(judged(0.0, seed) for seed in range(400))
    assert passed >= 0.95 * 400


def test_a_shift_of_two_fid_is_found() -> None:
    assert not any(judged(shift, seed) for seed in range(50) for shift in (-2.0, 2.0))


# The verb


def call(words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    monkeypatch.setattr("sys.argv", [])
    try:
        code: Any = main(shlex.split(words))
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (5.0, 1)])
def test_the_exit_code_is_the_verdict_and_the_sentence_comes_first(
    tmp_path: Path,
    shift: float,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE], {"fid": shift}))
    ended, out = call(f"reproduce {run}", capsys, monkeypatch)
    assert ended == code
    assert out.startswith("Differs: 8 of 16" if shift else "Reproduced: all 16")


def test_a_mini_run_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, out = call(f"reproduce {mini(tmp_path)}", capsys, monkeypatch)
    assert ended == 1
    assert "mini (fd_mini is not FID)" in out


def test_json_holds_everything_and_no_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE]))
    _, out = call(f"reproduce {run} json=true protocol_spread.fid=1.5", capsys, monkeypatch)
    data = json.loads(out, parse_constant=pytest.fail)
    assert data["verdict"] == "reproduced"
    assert data["protocol_spread"] == {"fid": 1.5, "clip_score": 0.0}
    assert len(data["points"]) == 48
    assert sum(point["band"] is None for point in data["points"]) == 32


def test_the_points_are_written_over_an_older_table_but_over_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE]))
    out = tmp_path / "points.csv"
    for _ in range(2):
        assert call(f"reproduce {run} out={out}", capsys, monkeypatch)[0] == 0
    table = pd.read_csv(out, keep_default_na=False, na_values=[""])
    assert len(table) == 48
    assert table["sampling"].notna().sum() == 16
    before = (run / "results.csv").read_bytes()
    assert call(f"reproduce {run} out={run / 'results.csv'}", capsys, monkeypatch)[0] == 2
    assert (run / "results.csv").read_bytes() == before


@pytest.mark.parametrize("columns", ["40", "60", "80", "120", "pipe"])
def test_names_and_numbers_are_whole_at_any_width(
    tmp_path: Path,
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run = write(tmp_path / "run", record([BASE]), scores([BASE], {"fid": -12.0}))
    _, out = call(f"reproduce {run}", capsys, monkeypatch)
    lines = out.splitlines()
    assert "…" not in out
    points = sd2eval.reproduce_run(run).points
    for _, row in points[points["verdict"] == "differs"].iterrows():
        cells = (row["checkpoint"], f"{row['measured']:.2f}", f"±{row['band']:.2f}", "differs -")
        assert any(all(cell in line for cell in cells) for line in lines)
    assert {"protocol_spread.clip_score=X.", "v1-5-pruned-emaonly"} <= set(out.replace(":", "").split())
    width = 80 if columns == "pipe" else int(columns)
    sentence = lines[: lines.index("")]
    assert width - 20 < max(map(len, sentence)) <= width


def test_everything_fits_into_80_columns(tmp_path: Path) -> None:
    rows = scores([BASE, V, OLD], {"fid": -12.0, "clip_score": 0.05})
    text = shown(sd2eval.reproduce_run(write(tmp_path, record([BASE, V, OLD]), rows)))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("differs -") == 24
    assert text.count("differs +") == 25  # and the legend
    assert "Left out of the bands" in text
    filled = sd2eval.reproduce_run(tmp_path, protocol_spread={"fid": 20.0, "clip_score": 0.1})
    assert "Left out of the bands" not in shown(filled)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("reproduce", "usage"),
        ("reproduce a b", "usage"),
        ("reproduce nowhere", "no run here"),
        ("reproduce RUN protocol_spread.fid=-1", "protocol_spread.fid=-1"),
        ("reproduce RUN protocol_spread.fid=nan", "protocol_spread.fid=nan"),
        ("reproduce RUN protocol_spread.clip_score=x", "a number is needed"),
        ("reproduce RUN protocol_spread.kid=1", "no such key"),
        ("reproduce RUN level=95", "level=95"),
        ("reproduce RUN json=yes", "true or false"),
        ("reproduce RUN out=", "a value is needed"),
        ("reproduce RUN out=RUN", "out=RUN: a file name that ends in .csv is needed"),
        ("reproduce RUN out=/proc/x.csv", "sd2eval: out=/proc/x.csv: cannot be written ("),
        ("reproduce RUN out=RUN/run.json/x.csv", "out=RUN/run.json/x.csv: cannot be written ("),
        ("reproduce RUN out=~nobody-here/x.csv", "out=~nobody-here/x.csv: cannot be written ("),
    ],
)
def test_a_mistake_is_one_line_and_ends_with_2(
    words: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "RUN", record([BASE]), scores([BASE]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    with pytest.raises(SystemExit) as end:
        main(shlex.split(words))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_from_python_a_mistake_is_an_input_error(tmp_path: Path) -> None:
    run = write(tmp_path, record([BASE]), scores([BASE]))
    with pytest.raises(InputError, match=r"protocol_spread\.kid"):
        sd2eval.reproduce_run(run, protocol_spread={"kid": 1.0})
