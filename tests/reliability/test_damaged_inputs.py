"""What a run was made of is damaged: no sweep and no report goes on with it, and each says so in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sd2eval
from sd2eval.__main__ import main
from sd2eval.errors import InputError
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


@pytest.fixture
def ended(whole: Path, tmp_path: Path) -> Path:
    """A run that is finished."""
    return damage.copy(whole, tmp_path / "ended")


def other_results(file: Path) -> None:
    """A number that looks like one."""
    table = pd.read_csv(file)
    table.loc[0, "value"] = 999.25
    table.to_csv(file, index=False)


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
    "results changed": ("results.csv", other_results),
    "results empty": ("results.csv", lambda file: file.write_text("")),
    "results as JSON cut": ("results.json", lambda file: damage.cut(file, 200)),
    "results as JSON gone": ("results.json", Path.unlink),
    "emissions changed": ("emissions.csv", lambda file: damage.flip(file, 200)),
    "emissions gone": ("emissions.csv", Path.unlink),
    "front empty": ("pareto.csv", lambda file: file.write_text("")),
    "front gone": ("pareto.csv", Path.unlink),
    "index changed": ("report.json", lambda file: damage.flip(file, 100)),
    "index empty": ("report.json", lambda file: file.write_text("")),
}
OF_TABLES = [how for how, (name, _) in DAMAGE.items() if name in damage.TABLES]
CASES = [(how, verb) for how in DAMAGE for verb in ("sweep", "reproduce" if how in OF_TABLES else "report")]
"""With verbs that read it; a report makes no number of a table that is there."""


@pytest.mark.parametrize(("how", "verb"), CASES)
def test_what_was_damaged_is_refused_by_name_with_the_way_out(
    verb: str, how: str, run: Path, ended: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, change = DAMAGE[how]
    run = ended if how in OF_TABLES else run
    change(run / name)
    before = damage.stamps(run)
    words = [*damage.SMALL, f"out={run}"] if verb == "sweep" else [str(run)]
    with pytest.raises(SystemExit) as end:
        main([verb, *words])
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


@pytest.mark.parametrize("how", OF_TABLES)
@pytest.mark.parametrize("verb", ["verify", "report"])
def test_a_damaged_table_is_made_again_and_the_sweep_is_finished(
    verb: str, how: str, ended: Path, whole: Path
) -> None:
    name, change = DAMAGE[how]
    change(ended / name)
    more = ["--repair", "progress=false"] if verb == "verify" else []
    assert main([verb, str(ended), *more]) == 0
    before = damage.stamps(ended)
    assert main(["sweep", *damage.SMALL, f"out={ended}"]) == 0
    assert damage.changed(before, ended) == set()
    for table in damage.TABLES:
        assert (ended / table).read_bytes() == (whole / table).read_bytes()


@pytest.mark.parametrize("text", ["", "checkpoint\n512-base\n", "a,b\n1,2,3\n"])
def test_a_table_that_no_digest_vouches_for_is_refused_where_it_is_none(text: str, ended: Path) -> None:
    """As in the runs of the first version."""
    for name in ("digests.json", "report.json"):
        (ended / name).unlink()
    (ended / "results.csv").write_text(text)
    with pytest.raises(InputError, match=rf"results\.csv: is damaged: .*verify {ended} --repair`"):
        sd2eval.run_sweep(*damage.SMALL, f"out={ended}")
    assert sd2eval.verify_run(ended, repair=True).whole
    assert len(sd2eval.run_sweep(*damage.SMALL, f"out={ended}").results) > 0


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
