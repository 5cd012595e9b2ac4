"""The verb `models` as a user meets it: its table, its help, its exit codes and its mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sd2eval.__main__ import main
from sd2eval.weights import hub
from sd2eval.weights.first_use import recorded
from tests.models_world import CONTENTS, ROOT, World, a_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(tmp_path, monkeypatch) as made:
        yield made


def run(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the verb in this process and return exit code, stdout and stderr."""
    try:
        code = main(["models", *words, f"table={world.table}"])
    except SystemExit as stop:
        code = int(str(stop.code))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_list_reads_and_asks_nothing_and_fits_a_page(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fetch("unpublished")
    world.server.log.clear()
    code, shown, _ = run(world, capsys, "list")
    assert code == 0
    assert world.server.log == []
    assert max(len(line) for line in shown.splitlines()) <= 100
    assert "\x1b" not in shown
    assert f"recorded {recorded()[0].sha256[:12]}" in shown
    assert "missing" in shown


def test_the_list_as_json_has_everything(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fetch("first", "unpublished")
    code, shown, _ = run(world, capsys, "list", "json=true")
    assert code == 0
    listed = {entry["name"]: entry for entry in json.loads(shown)}
    assert list(listed) == ["first", "second", "unpublished", "address"]
    assert listed["first"]["state"] == "verified"
    assert Path(listed["first"]["path"]).read_bytes() == CONTENTS["first"]
    assert listed["second"]["path"] is None
    assert listed["unpublished"]["recorded"]["origin"] == "owner/unpublished"


def test_exit_codes_tell_wrong_from_mistaken(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, capsys, "fetch", "first", "progress=false")[0] == 0
    assert run(world, capsys, "verify")[0] == 0
    hub.discard(Path(hub.in_cache("owner/first", "first.ckpt") or ""))
    assert run(world, capsys, "verify", "first")[0] == 2
    assert run(world, capsys, "verify", str(world.table))[0] == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "models: do what? list, verify, fetch, forget"),
        (["lsit"], "'lsit': no such action; did you mean 'list'?"),
        (["list", "first"], "models list: takes no names (first)"),
        (["fetch"], "fetch what? all"),
        (["fetch", "frist"], "did you mean 'first'?"),
        (["forget"], "models forget: give one name"),
        (["forget", "first"], "no digest was recorded for 'first'; recorded: none"),
        (["list", "jsn=true"], "'jsn': no such key; did you mean 'json'?"),
        (["list", "--json"], "'--json': not understood"),
    ],
)
def test_mistakes_are_one_line(
    world: World, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    code, shown, said = run(world, capsys, *words)
    assert (code, shown) == (2, "")
    assert line in said
    assert said.count("\n") == 1


def test_the_help_names_every_action_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "list",
        "verify",
        "fetch",
        "forget",
        "table=",
        "json=",
        "progress=",
        "HF_HOME",
        "TORCH_HOME",
    ):
        assert word in shown
    assert max(len(line) for line in shown.splitlines()) <= 110


def test_the_verb_needs_no_torch() -> None:
    code = "from sd2eval.__main__ import main; main(['models', 'list']); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"torch", "diffusers", "transformers", "numpy", "pandas", "hydra"})
    assert "512-inpainting-ema" in done.stdout
