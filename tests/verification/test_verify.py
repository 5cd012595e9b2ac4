"""Every kind of damage is found and named; what is only unfinished is no damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import sd2eval
from sd2eval.__main__ import main
from sd2eval.errors import InputError
from sd2eval.evaluate import complete
from sd2eval.plan import Block
from sd2eval.store import RunFolder
from sd2eval.verification.findings import Verification
from tests import damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.make(tmp_path_factory.mktemp("verify") / "run")


@pytest.fixture(scope="module")
def scratch(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for tests that put back what they change."""
    return damage.copy(whole, tmp_path_factory.mktemp("scratch") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return damage.copy(whole, tmp_path / "run")


def damaged(found: Verification) -> list[str]:
    return [finding.path for finding in found.of("damaged")]


def lines(found: Verification) -> str:
    return "\n".join(finding.line for finding in found.findings)


def test_a_whole_run_is_whole_and_nothing_in_it_is_touched(whole: Path) -> None:
    before = damage.stamps(whole)
    found = sd2eval.verify_run(whole)
    assert found.whole
    assert found.findings == []
    assert (found.shards, found.images, found.pngs) == (6, 24, 24)
    assert found.was_finished
    assert found.summary.startswith("Whole: every digest")
    assert damage.changed(before, whole) == set()


def test_every_file_of_a_run_is_of_a_kind_that_is_damaged_here(whole: Path) -> None:
    known = {file for pattern in damage.KINDS.values() for file in whole.glob(pattern)}
    others = {file.relative_to(whole).parts[0] for file in whole.rglob("*") if file.is_file()}
    assert others - {file.relative_to(whole).parts[0] for file in known} == {
        ".lock",
        ".writer",
        "events.jsonl",
    }


@pytest.mark.parametrize("kind", damage.KINDS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6))
def test_one_flipped_bit_anywhere_is_found_and_its_file_is_named(
    scratch: Path, kind: str, position: int
) -> None:
    file = damage.file_of(scratch, kind)
    raw = file.read_bytes()
    try:
        damage.flip(file, position)
        assert damaged(sd2eval.verify_run(scratch)) == [file.relative_to(scratch).as_posix()]
    finally:
        file.write_bytes(raw)


@pytest.mark.parametrize("kind", damage.KINDS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.sampled_from([0.0, 0.001, 0.5, 0.999]) | st.floats(0, 0.999))
def test_a_file_that_is_cut_anywhere_is_found_and_named(scratch: Path, kind: str, share: float) -> None:
    file = damage.file_of(scratch, kind)
    raw = file.read_bytes()
    try:
        damage.cut(file, int(share * len(raw)))
        assert damaged(sd2eval.verify_run(scratch)) == [file.relative_to(scratch).as_posix()]
    finally:
        file.write_bytes(raw)


@pytest.mark.parametrize("kind", sorted(damage.KINDS.keys() - {"session", "index"}))
def test_a_file_that_is_gone_is_named(run: Path, kind: str) -> None:
    file = damage.file_of(run, kind)
    file.unlink()
    found = sd2eval.verify_run(run)
    assert damaged(found) == [file.relative_to(run).as_posix()]
    assert "is missing" in lines(found)


def test_a_session_that_is_gone_is_seen_in_what_the_energy_adds_up_to(run: Path) -> None:
    damage.file_of(run, "session").unlink()
    assert damaged(sd2eval.verify_run(run)) == ["emissions.csv"]


def test_a_shard_that_is_gone_is_lost_where_there_are_results_of_it_and_else_not_drawn_yet(run: Path) -> None:
    shutil.rmtree(run / "shards" / "512-base" / "000002-000003")
    found = sd2eval.verify_run(run)
    assert "shards/512-base/000002-000003" in damaged(found)
    for name in ("results.csv", "results.json", "report.json"):
        (run / name).unlink()
    found = sd2eval.verify_run(run)
    assert found.whole
    assert "512-base: not finished: 4 of 6 captions are drawn" in lines(found)


def test_two_pngs_that_changed_places_are_both_named(run: Path) -> None:
    one, other, *_ = sorted((run / "images" / "512-base_g3").iterdir())
    raw = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(raw)
    found = sd2eval.verify_run(run)
    assert sorted(damaged(found)) == [file.relative_to(run).as_posix() for file in (one, other)]
    assert lines(found).count("has other pixels than were scored") == 2


def test_one_changed_pixel_in_a_well_formed_png_is_found(run: Path) -> None:
    file = damage.file_of(run, "png")
    pixels = np.array(Image.open(file))
    pixels[3, 4, 1] ^= 1
    Image.fromarray(pixels).save(file)
    assert damaged(sd2eval.verify_run(run)) == [file.relative_to(run).as_posix()]


def test_a_png_saved_again_with_the_same_pixels_is_no_damage(run: Path) -> None:
    file = damage.file_of(run, "png")
    Image.open(file).save(file, compress_level=9)
    assert sd2eval.verify_run(run).whole


@pytest.mark.parametrize("change", ["value", "stderr", "n", "protocol", "row"])
def test_an_edited_number_is_found_even_where_no_digest_is(run: Path, change: str) -> None:
    (run / "report.json").unlink()
    frame = pd.read_csv(run / "results.csv")
    if change in ("value", "stderr"):
        frame.loc[0, change] *= 1 + (1e-8 if change == "value" else 1e-5)
    elif change == "n":
        frame.loc[3, "n"] -= 1
    elif change == "protocol":
        frame.loc[3, "protocol"] = "mini@00000000"
    else:
        frame = pd.concat([frame, frame.iloc[[3]].assign(guidance_scale=9.0)])
    frame.to_csv(run / "results.csv", index=False)
    assert damaged(sd2eval.verify_run(run)) == ["results.csv"]


def test_a_copied_shard_under_another_name_is_named(run: Path) -> None:
    shards = run / "shards" / "512-base"
    for name in ("000002-000005", "000100-000101", "copy", "0-1", "000003-000002"):
        shutil.copytree(shards / "000002-000003", shards / name)
        assert damaged(sd2eval.verify_run(run)) == [f"shards/512-base/{name}"]
        shutil.rmtree(shards / name)
    shutil.rmtree(shards / "000004-000005")
    shutil.copytree(shards / "000002-000003", shards / "000004-000005")
    found = sd2eval.verify_run(run)
    assert damaged(found)[0] == "shards/512-base/000004-000005/manifest.json"
    assert "another block's" in lines(found)


def test_a_shard_of_another_checkpoint_is_named(run: Path) -> None:
    target = run / "shards" / "512-base" / "000002-000003"
    shutil.rmtree(target)
    shutil.copytree(run / "shards" / "x4-upscaling" / "000002-000003", target)
    assert damaged(sd2eval.verify_run(run))[0] == "shards/512-base/000002-000003/manifest.json"


def test_a_picture_too_many_is_named(run: Path) -> None:
    extra = run / "images" / "512-base_g3" / "1.png"
    shutil.copy(damage.file_of(run, "png"), extra)
    assert damaged(sd2eval.verify_run(run)) == ["images/512-base_g3/1.png"]


def test_what_killed_processes_left_is_said_and_is_no_damage(run: Path) -> None:
    (run / "shards" / "512-base" / ".tmp-000006-000007-abc").mkdir()
    (run / ".tmp-results.csv-abc").write_text("half")
    (run / "images" / "512-base_g3" / ".7.png.12.tmp").write_text("half")
    found = sd2eval.verify_run(run)
    assert found.whole
    assert len(found.of("left over")) == 3


def test_a_half_finished_run_is_whole_and_says_what_is_missing(run: Path) -> None:
    for name in ("results.csv", "results.json", "report.json", "emissions.csv", "pareto.csv"):
        (run / name).unlink()
    for block in ("000002-000003", "000004-000005"):
        shutil.rmtree(run / "shards" / "x4-upscaling" / block)
    found = sd2eval.verify_run(run)
    assert found.whole
    assert not found.was_finished
    assert "x4-upscaling: not finished: 2 of 6 captions are drawn" in lines(found)
    assert found.summary.startswith("Not finished")
    assert main(["verify", str(run), "progress=false"]) == 0
    left = [finding for finding in found.of("left over") if finding.path.startswith("images/x4")]
    assert len(left) == 8  # drawn, but their shards are gone


def test_what_engines_leave_is_known_and_is_no_damage(run: Path) -> None:
    for name in ("results.csv", "results.json", "report.json", "emissions.csv", "pareto.csv"):
        (run / name).unlink()
    shutil.rmtree(run / "shards" / "x4-upscaling" / "000002-000003")
    before = sd2eval.verify_run(run).findings
    damage.leave(run)
    stamps = damage.stamps(run)
    found = sd2eval.verify_run(run)
    assert found.whole
    assert damage.changed(stamps, run) == set()
    new = {(one.path, one.state): one.what for one in found.findings if one not in before}
    given_up = ("failed/x4-upscaling-000002-000003.json", "unfinished")
    assert new.keys() == {given_up, ("claims", "left over")}
    said = "x4-upscaling/000002-000003 was given up after 3 tries (no GPU is left); the next sweep tries it"
    assert new[given_up].startswith(said)


@pytest.mark.parametrize("record", ["{", "[]", '{"checkpoint": "a", "captions": [1], "attempts": 1}'])
def test_a_record_of_a_failure_that_cannot_be_read_is_no_damage(run: Path, record: str) -> None:
    (run / "failed").mkdir()
    (run / "failed" / "x.json").write_text(record)
    found = sd2eval.verify_run(run)
    assert found.whole
    assert "failed/x.json: a shard was given up; its record cannot be read" in lines(found)


def test_a_run_that_has_only_begun_is_whole(run: Path) -> None:
    for name in ("shards", "images", "sheets", "sessions"):
        shutil.rmtree(run / name)
    for name in ("results.csv", "results.json", "report.json", "emissions.csv", "reference.npz"):
        (run / name).unlink()
    digests = RunFolder(run).read_digests()
    del digests["files"]["reference.npz"]
    RunFolder(run).write_sealed("digests.json", digests)
    found = sd2eval.verify_run(run)
    assert found.whole
    assert "reference.npz: not written yet" in lines(found)


@pytest.mark.parametrize("kept", ["grid", "none"])
def test_pngs_that_were_never_kept_are_not_missed(tmp_path: Path, kept: str) -> None:
    run = sd2eval.run_sweep(*damage.SMALL, f"images={kept}", f"out={tmp_path / 'run'}").path
    found = sd2eval.verify_run(run)
    assert found.findings == []
    assert (found.images, found.pngs) == (24, 0)


def test_a_run_resumed_with_fewer_pictures_kept_misses_none(run: Path) -> None:
    shutil.rmtree(run / "shards" / "512-base" / "000004-000005")
    (run / "results.csv").unlink()
    for file in (run / "images").glob("512-base*/*.png"):
        file.unlink() if file.stem in _captions(run)[4:] else None
    sd2eval.run_sweep(*damage.SMALL, "images=none", f"out={run}")
    assert sd2eval.verify_run(run).findings == []


def _captions(run: Path) -> list[str]:
    return [str(prompt["caption_id"]) for prompt in RunFolder(run).read_prompts()]


def test_cells_that_stopped_by_themselves_are_whole(tmp_path: Path) -> None:
    words = ("prompts.n=auto", "prompts.first=16", "prompts.most=40", "precision.clip_mini=0.06")
    metrics = "protocol.metrics=[fd_mini,clip_mini]"
    run = sd2eval.run_sweep(
        *damage.SMALL[:1], *words, metrics, "shard_size=8", "progress=false", f"out={tmp_path / 'run'}"
    ).path
    found = sd2eval.verify_run(run)
    assert found.findings == []
    store = RunFolder(run)
    assert complete(store, store.read_info(), "512-base")
    uneven = {
        len(store.read_manifest(name, block)["guidance_scales"])
        for name in ("512-base", "x4-upscaling")
        for block in store.blocks(name)
    }
    assert uneven == {1, 2}
    shutil.rmtree(run / "shards" / "512-base" / Block(0, 7).key)
    assert "shards/512-base/000000-000007" in damaged(sd2eval.verify_run(run))


def as_of_version_0_1(run: Path) -> None:
    """Take away what later versions write beside what there was."""
    (run / "digests.json").unlink()
    (run / "report.json").unlink()
    for file in [*run.glob("shards/*/*/manifest.json"), *run.glob("sessions/*.json")]:
        data = json.loads(file.read_bytes())
        data.pop("sha256")
        data.pop("kept", None)
        file.write_text(json.dumps(data, indent=1) + "\n")


def test_a_run_of_an_older_version_is_whole(run: Path) -> None:
    as_of_version_0_1(run)
    assert sd2eval.verify_run(run).findings == []


@pytest.mark.parametrize("file", ["run.json", "prompts.json"])
def test_an_older_run_is_checked_against_itself(run: Path, file: str) -> None:
    as_of_version_0_1(run)
    data = json.loads((run / file).read_bytes())
    if file == "run.json":
        data["config"]["seed"] += 1
    else:
        data[0], data[1] = data[1], data[0]
    (run / file).write_text(json.dumps(data))
    assert damaged(sd2eval.verify_run(run))[0] == file


def test_the_verb_ends_with_one_and_names_the_file_first_line_last_word(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = damage.file_of(run, "png")
    damage.flip(file, 100)
    with pytest.raises(SystemExit) as end:
        main(["verify", str(run), "progress=false"])
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert out.startswith(f"Damaged: 1 finding in {run}")
    assert f"- {file.relative_to(run).as_posix()}: was changed since it was written" in out
    assert f"verify {run} --repair" in out


def test_json_lists_everything(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage.file_of(run, "features").unlink()
    with pytest.raises(SystemExit):
        main(["verify", str(run), "--json", "progress=false"])
    data = json.loads(capsys.readouterr().out)
    assert data["whole"] is False
    assert data["damaged"] == [{"path": damage.KINDS["features"], "what": "is missing"}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: python -m sd2eval verify RUN"),
        (["nowhere"], "no run here"),
        (["RUN", "device=cpu"], "device=cpu: goes with repair=true only"),
        (["RUN", "repair=yes"], "repair=yes: true or false is needed"),
        (["RUN", "--force"], "'--force': not understood"),
    ],
)
def test_a_mistake_is_one_line_and_code_two(
    whole: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["verify", *(str(whole) if word == "RUN" else word for word in words)])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("repair", [(), ("--repair",)])
@pytest.mark.parametrize("name", ["", "shards/512-base", "images/512-base_g3", "events.jsonl"])
def test_what_may_not_be_read_is_one_line_and_code_two(
    name: str, repair: tuple[str, ...], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with damage.closed(run / name), pytest.raises(SystemExit) as end:
        main(["verify", str(run), "progress=false", *repair])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(run / name) in line
    assert "Permission denied" in line


def test_a_newer_run_is_refused(run: Path) -> None:
    as_of_version_0_1(run)
    data = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(data | {"schema_version": 99}))
    with pytest.raises(InputError, match="newer sd2eval"):
        sd2eval.verify_run(run)
