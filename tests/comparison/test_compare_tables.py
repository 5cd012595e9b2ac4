"""What `compare` prints and writes, and its answers to what was typed wrongly."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import sd2eval
from sd2eval.__main__ import main
from sd2eval.answers import check_csv
from sd2eval.comparison.result import RunComparison, Shown
from sd2eval.comparison.tables import BEGINNING, show
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS
from tests.compared import swept


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return swept(tmp_path_factory)


@pytest.fixture(scope="module")
def found(runs: dict[str, Path]) -> RunComparison:
    return sd2eval.compare_runs(runs["base"], runs["steps"])


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what main() sets for a verb."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


def call(*words: object, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_answer_comes_first_and_json_and_csv_have_every_number(
    runs: dict[str, Path], found: RunComparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert " ".join(call(runs["base"], runs["steps"], capsys=capsys).split()).startswith(found.sentence)
    table = tmp_path / "table.csv"
    words = (runs["base"], runs["steps"], "json=true", f"out={table}")
    record: dict[str, Any] = json.loads(call(*words, capsys=capsys))
    assert record["sentence"] == found.sentence
    assert len(record["rows"]) == len(found.rows) == 30
    read = pd.read_csv(table, keep_default_na=False, na_values={"scale_a": [""], "scale_b": [""]})
    pd.testing.assert_frame_equal(read, found.frame, check_dtype=False)
    call(*words, capsys=capsys)  # its own table is written again


@pytest.mark.parametrize("columns", ["40", "60", "80", "120", "pipe"])
def test_names_and_numbers_are_whole_at_any_width(
    runs: dict[str, Path],
    found: RunComparison,
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = call(runs["base"], runs["steps"], capsys=capsys)
    assert "…" not in out
    lines = out.splitlines()
    assert {str(runs["base"]), str(runs["steps"]), "x4-upscaling"} <= set(out.split())
    prose = lines[: lines.index("")]
    assert len(prose) > 2
    assert max(map(len, prose)) <= (100 if columns == "pipe" else int(columns))
    for row in found.rows:
        numbers = Shown(row, METRICS[row.metric].factor)
        assert any(numbers.difference in line and numbers.interval in line for line in lines)
    heads = next(line for line in lines if line.startswith("cell ")).replace("B - A", "").split()
    missing = [head for head in ("A", "B", "detectable") if head not in heads]
    said = f"left out to fit into {columns} columns: {', '.join(missing)}; "
    assert (said in " ".join(lines)) == bool(missing) == (columns == "80")


def test_a_file_that_is_no_such_table_is_not_overwritten(runs: dict[str, Path], tmp_path: Path) -> None:
    results = runs["base"] / "results.csv"
    with pytest.raises(InputError, match="holds something else"):
        check_csv(results, BEGINNING)
    for wrong in ("table", "table.json", tmp_path):
        with pytest.raises(InputError, match=r"ends in \.csv"):
            check_csv(wrong, BEGINNING)


@pytest.mark.parametrize(
    ("value", "stderr", "shown"),
    [
        (0.01234, 0.0021, "+0.0123"),
        (-0.00004, 0.0021, "+0.0000"),  # no minus before a zero
        (-123.4, 17.0, "-123"),
        (3e-9, 1e-9, "<1e-4"),
        (-1.6e-6, 1e-6, "<1e-4"),
        (0.00131, 1e-6, "+0.0013"),
        (0.5, 0.0, "+0.5"),
    ],
)
def test_a_difference_has_two_digits_of_its_standard_error(
    found: RunComparison, value: float, stderr: float, shown: str
) -> None:
    row = replace(found.rows[0], a=7.6, b=7.6, difference=value, stderr=stderr)
    assert Shown(row).difference == shown


def test_what_is_below_the_digits_of_both_values_is_shown_as_that(found: RunComparison) -> None:
    tiny = {"difference": 1.6e-6, "stderr": 1e-6, "low": -4e-7, "high": 3.6e-6, "detectable": 3e-6}
    shown = Shown(replace(found.rows[0], a=0.27612345, b=0.27612505, **tiny))
    assert (shown.difference, shown.interval, shown.detectable) == ("<1e-5", "within 1e-5", "<1e-5")
    assert shown.number(shown.row.a) == "0.27612"
    wider = Shown(replace(shown.row, high=3.6e-5))
    assert wider.interval == "0.00000 to 0.00004"
    large = Shown(replace(shown.row, a=123456.0, b=123456.1))
    assert (large.difference, large.number(large.row.a)) == ("<1", "123456")


def test_the_sentence_does_not_call_rounding_a_difference(
    found: RunComparison, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"a": 0.3, "b": 0.3, "difference": 1.6e-6, "stderr": 1e-7, "low": 1.4e-6, "high": 1.8e-6}
    rows = [replace(row, verdict="equal", p=1e-9, p_corrected=1e-8, **tiny) for row in found.headline]
    told = replace(found, label_a="one", label_b="two", headline=rows, rows=rows)
    assert told.sentence == (
        "A (one) and B (two) differ by less than a thousandth of a standard error in FD (mini), mean of 4 "
        "cells: <1e-5 (95% interval within 1e-5) and in CLIP (mini), mean of 4 cells: <1e-5 (95% interval "
        "within 1e-5), over 2 comparisons."
    )
    show(told, Console(width=200))
    out = capsys.readouterr().out
    assert "equal: the whole interval" in " ".join(out.split())
    assert "B worse" not in out
    assert "B better" not in out


def test_the_sentence_says_better_worse_and_open_with_their_numbers(found: RunComparison) -> None:
    first, second = found.headline
    numbers = {"difference": 0.012, "stderr": 0.002, "low": 0.008, "high": 0.016, "p_corrected": 0.00301}
    told = replace(
        found,
        label_a="512-base",
        label_b="mine",
        headline=[
            replace(first, verdict="open", detectable=0.3, **numbers | {"p_corrected": 0.6}),
            replace(second, verdict="better", **numbers),
        ],
    )
    assert told.sentence == (
        "B (mine) is better than A (512-base) in CLIP (mini), mean of 4 cells: +0.0120 (95% interval 0.0080 "
        "to 0.0160, corrected p = 0.003); they cannot be told apart in FD (mini), mean of 4 cells: +0.0120 "
        "(95% interval 0.0080 to 0.0160, corrected p = 0.60; a difference of 0.3000 would have been found), "
        "over 30 comparisons."
    )
    worse = replace(told, headline=[replace(first, verdict="worse", cells=1, **numbers)])
    assert worse.sentence.startswith("B (mine) is worse than A (512-base) in FD (mini): +0.0120 (95%")


# What was typed, RUN standing for a run, and what the one line must name.
MISTAKES = {
    "": ("usage: python -m sd2eval compare",),
    "RUN RUN RUN": ("usage: python -m sd2eval compare",),
    "nowhere RUN": ("nowhere: no run here",),
    "RUN": ("one run alone", "a=NAME b=NAME"),
    "RUN a=512-base": ("b=", "which checkpoint of B", "512-base, x4-upscaling"),
    "RUN a=@3 b=@3": ("one run alone", "same cells"),
    "RUN a=512-bse b=x4-upscaling": ("'512-bse'", "did you mean '512-base'", "no such A checkpoint"),
    "RUN a=512-base@x b=x4-upscaling": ("a=512-base@x", "after the @"),
    "RUN a=512-base@2 b=512-base@3": ("guidance scale 2", "not in A", "1.5, 3"),
    "RUN a=@1.5 b=@3 scales=[3]": ("scales=", "exclude each other"),
    "RUN RUN scales=[4]": ("guidance scale 4", "1.5, 3"),
    "RUN RUN scales=[x]": ("scales=[x]", "numbers"),
    "RUN RUN metrics=[fid]": ("'fid'", "shared metrics: ", "fd_mini"),
    "RUN RUN correction=none": ("'none'", "holm, fdr"),
    "RUN RUN common=maybe": ("common=maybe", "true or false"),
    "RUN RUN json=1": ("json=1", "true or false"),
    "RUN RUN out=table.txt": ("out=table.txt", ".csv"),
    "RUN RUN out=/proc/x.csv": ("sd2eval: out=/proc/x.csv: cannot be written (",),
    "RUN RUN metric=[fid]": ("'metric'", "did you mean 'metrics'"),
    "RUN RUN --json": ("--json", "KEY=VALUE"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gets_one_line_that_names_it(
    words: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compare", *words.replace("RUN", str(runs["base"])).split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    for part in MISTAKES[words]:
        assert part in err
