"""What a run was made of is damaged: no sweep and no report goes on with it, and each says so in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sd2eval.__main__ import main
from sd2eval.store import RunFolder
from tests import damage

SHARD = "shards/x4-upscaling/000004-000005"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.make(tmp_path_factory.mktemp("inputs") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run whose last shard and tables are still to come."""
    run = damage.copy(whole, tmp_path / "run")
    shutil.rmtree(run / SHARD)
    (run / "results.csv").unlink()
    (run / "report.json").unlink()
    return run


def other_record(file: Path) -> None:
    data = json.loads(file.read_bytes())
    data["config"]["protocol"]["metrics"].pop()
    file.write_text(json.dumps(data))


def other_prompts(file: Path) -> None:
    """Another order: nothing about the file looks wrong."""
    file.write_text(json.dumps(json.loads(file.read_bytes())[::-1]))


def other_reference(file: Path) -> None:
    with np.load(file) as archive:
        arrays = {name: array * 2 for name, array in archive.items()}
    np.savez(file, **arrays)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "record changed": ("run.json", other_record),
    "record empty": ("run.json", lambda file: file.write_text("[]")),
    "record gone": ("run.json", Path.unlink),
    "prompts changed": ("prompts.json", other_prompts),
    "prompts empty": ("prompts.json", lambda file: file.write_text("[]")),
    "prompts cut": ("prompts.json", lambda file: damage.cut(file, 200)),
    "prompts gone": ("prompts.json", Path.unlink),
    "reference changed": ("reference.npz", other_reference),
    "reference cut": ("reference.npz", lambda file: damage.cut(file, 200)),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("verb", ["sweep", "report"])
def test_what_was_damaged_is_refused_by_name_with_the_way_out(
    verb: str, how: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, change = DAMAGE[how]
    change(run / name)
    before = damage.stamps(run)
    words = {"sweep": [*damage.SMALL, f"out={run}"], "report": [str(run)]}
    with pytest.raises(SystemExit) as end:
        main([verb, *words[verb]])
    assert end.value.code == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert name in line
    assert f"`python -m sd2eval verify {run} --repair`" in line
    changed = {path for path in damage.changed(before, run) if not path.startswith("sessions/")}
    assert changed == set()


@pytest.mark.parametrize("text", ["[]", "{}", "{", '["a"]', '[{"caption_id": 1}]'])
def test_prompts_that_no_digest_vouches_for_are_refused_where_they_are_none(
    text: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in the runs of the first version."""
    (run / "digests.json").unlink()
    (run / "prompts.json").write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["report", str(run)])
    assert end.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "prompts.json: damaged (" in line


def test_what_was_refused_is_repaired_as_the_line_says(run: Path, whole: Path) -> None:
    other_prompts(run / "prompts.json")
    other_reference(run / "reference.npz")
    assert main(["verify", str(run), "--repair", "progress=false"]) == 0
    assert main(["sweep", *damage.SMALL, f"out={run}"]) == 0
    assert (run / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_a_restart_killed_anywhere_is_begun_again(removed: int, run: Path, whole: Path) -> None:
    """Another config was tried in a folder without shards, and killed; then the first one comes back."""
    for folder in ("shards", "images", "sheets", "sessions"):
        shutil.rmtree(run / folder)
    for name in damage.TABLES:
        (run / name).unlink(missing_ok=True)
    for name in ("prompts.json", "reference.npz", "run.json")[:removed]:
        (run / name).unlink()
    assert not RunFolder(run).begun
    assert main(["sweep", *damage.SMALL, f"out={run}"]) == 0
    assert (run / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
