"""What `protocol_matrix` prints and writes, and its answers to what was typed wrongly."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import sd2eval
from sd2eval.__main__ import main
from sd2eval.matrix.result import ProtocolMatrix
from sd2eval.matrix.tables import show
from tests.matrix import uneven
from tests.test_layers import HEAVY, loaded_by


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verb")
    words = uneven.write(root / "data")
    sd2eval.run_sweep(*uneven.SWEEP, *words, "checkpoints=[512-base,768-v]", f"out={root / 'run'}")
    return root / "run"


@pytest.fixture(scope="module")
def found(run: Path) -> ProtocolMatrix:
    return sd2eval.protocol_matrix(run)


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what main() sets for a verb."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


def call(*words: object, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["protocol_matrix", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_answer_comes_first_and_json_and_csv_have_every_number(
    run: Path, found: ProtocolMatrix, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = call(run, capsys=capsys)
    assert " ".join(out.split()).startswith(f"{found.sentence} Ranks: ")
    assert f"{found.protocol}, the run's own, gives its results.csv again" in " ".join(out.split())
    assert found.protocol.startswith("mini@")
    assert f"{uneven.PICTURES} real images" in " ".join(out.split())
    assert f"n = {found.values[0].n} per cell" in " ".join(out.split())
    table = tmp_path / "table.csv"
    record = json.loads(call(run, "json=true", f"out={table}", capsys=capsys))
    assert record["sentence"] == found.sentence
    assert len(record["values"]) == len(found.values) == 4 * len(found.shifts)
    assert {shift["protocol"] for shift in record["shifts"]} | record["left_out"].keys() == set(
        found.left_out
    ) | {shift.protocol for shift in found.shifts}
    assert all(len(shift["weights"]) == len(shift["reference"]) == 64 for shift in record["shifts"])
    pd.testing.assert_frame_equal(pd.read_csv(table), found.frame)
    call(run, f"out={table}", capsys=capsys)  # its own table is written again


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_names_and_numbers_are_whole_at_any_width(
    found: ProtocolMatrix, columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    show(found, Console(width=columns, highlight=False))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[: lines.index("")])) <= columns
    assert found.run in " ".join(lines).replace(",", "").split()
    assert columns < 80 or max(len(line) for line in lines if found.run not in line) <= columns
    assert not any("…" in line for line in lines)
    for part in ("mini_jpeg: reference_jpeg=75", "sample_at (768-v)", "the same numbers"):
        assert any(part in line for line in lines)


def test_a_warning_stands_where_the_runs_results_are_not_given_again(
    found: ProtocolMatrix, capsys: pytest.CaptureFixture[str]
) -> None:
    off = replace(found, agreement=replace(found.agreement, largest=2e-3))
    show(off, Console(width=200))
    assert (
        f"WARNING: {found.protocol}, the run's own, does not give its results.csv" in capsys.readouterr().out
    )
    unchecked = replace(found, agreement=replace(found.agreement, compared=0))
    show(unchecked, Console(width=200))
    assert "not checked against the run's results.csv: it has no fd_mini" in capsys.readouterr().out


def test_the_words_for_reproduce_round_the_largest_shift_up(
    found: ProtocolMatrix, capsys: pytest.CaptureFixture[str]
) -> None:
    shifts = [replace(shift, largest=0.0) for shift in found.shifts]
    shifts[1] = replace(shifts[1], largest=-1.2301)
    fid = replace(found, metric="fid", shifts=shifts)
    assert fid.reproduce_words == "protocol_spread.fid=1.24"
    show(fid, Console(width=80))
    assert f"reproduce {found.run} protocol_spread.fid=1.24" in capsys.readouterr().out.splitlines()[-1]
    assert replace(fid, metric="kid").reproduce_words == ""
    assert replace(fid, first="mini_jpeg").reproduce_words == ""
    assert replace(fid, shifts=shifts[:1]).reproduce_words == ""


def test_numbers_look_like_those_of_a_sweep(
    found: ProtocolMatrix, capsys: pytest.CaptureFixture[str]
) -> None:
    shift = replace(found.shifts[1], mean=213.8, mean_stderr=302.4, largest=-1234.5, same_as="")
    spread = replace(found.spreads[0], value=213.8, stderr=302.4, lowest=213.8, highest=1448.3)
    show(replace(found, shifts=[found.shifts[0], shift], spreads=[spread]), Console(width=120))
    out = capsys.readouterr().out
    assert "+214 ± 302" in out
    assert "-1234" in out
    (row,) = (line.split() for line in out.splitlines() if line.startswith("512-base at 1.5"))
    assert row[3:] == ["214", "±", "302", "214", "1448", "1234", "4.1"]
    assert "by up to 1234 (" in out
    assert "e+0" not in out


# What was typed, RUN standing for a run, and what the one line must name.
MISTAKES = {
    "": ("usage: python -m sd2eval protocol_matrix",),
    "RUN RUN": ("usage: python -m sd2eval protocol_matrix",),
    "nowhere": ("nowhere: no run here",),
    "RUN protocols=[min]": ("'min'", "did you mean 'mini'", "protocols: "),
    "RUN protocols=[mini,mini]": ("protocols=[mini,mini]", "each protocol once"),
    "RUN checkpoints=[512-bse]": ("'512-bse'", "did you mean '512-base'"),
    "RUN scales=[4]": ("scales=4", "1.5, 3"),
    "RUN scales=[x]": ("scales=[x]", "numbers"),
    "RUN metric=clip_mini": ("'clip_mini'", "metrics: ", "fd_mini"),
    "RUN metric=fid": (
        "no protocol can be computed",
        "mlperf, model_card, model_card_native, torchmetrics: it",
    ),
    "RUN device=tpu": ("tpu",),
    "RUN json=1": ("json=1", "true or false"),
    "RUN out=table.txt": ("out=table.txt", ".csv"),
    "RUN out=/proc/x.csv": ("sd2eval: out=/proc/x.csv: cannot be written (",),
    "RUN protocol=[mini]": ("'protocol'", "did you mean 'protocols'"),
    "RUN --json": ("--json", "KEY=VALUE"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gets_one_line_that_names_it(
    words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["protocol_matrix", *words.replace("RUN", str(run)).split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    for part in MISTAKES[words]:
        assert part in err


def test_a_file_that_is_no_such_table_is_not_overwritten(run: Path) -> None:
    results = run / "results.csv"
    before = results.read_bytes()
    with pytest.raises(SystemExit):
        main(["protocol_matrix", str(run), f"out={results}"])
    assert results.read_bytes() == before


@pytest.mark.parametrize("words", [["--help"], ["nowhere"], ["nowhere", "json=1"], ["RUN", "scales=[4]"]])
def test_torch_is_loaded_after_the_words_are_checked(words: list[str], run: Path) -> None:
    given = [word.replace("RUN", str(run)) for word in words]
    code = (
        "from sd2eval.__main__ import main\n"
        f"try: main(['protocol_matrix', *{given}])\nexcept SystemExit: pass\nprint()"
    )
    assert loaded_by(code).isdisjoint({"torch", "diffusers", "transformers"} & set(HEAVY))
