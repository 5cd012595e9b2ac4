"""A repair makes exactly what was damaged again, the same as it was, and deletes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sd2eval
from sd2eval.__main__ import main
from sd2eval.errors import InputError, Stopped
from sd2eval.records import RunInfo
from sd2eval.store import RunFolder
from sd2eval.verification import planned, quarantine, repair
from sd2eval.verification.findings import Verification
from sd2eval.verification.png import pixels_digest
from tests import damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.make(tmp_path_factory.mktemp("repair") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return damage.copy(whole, tmp_path / "run")


def repaired(run: Path) -> Verification:
    found = sd2eval.verify_run(run, repair=True)
    assert found.findings == []
    assert found.repaired
    return found


def assert_same_numbers_and_pixels(run: Path, whole: Path) -> None:
    assert (run / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert damage.pixels(run, pixels_digest) == damage.pixels(whole, pixels_digest)


OWN = {
    "record": {"run.json", "digests.json"},
    "digests": {"digests.json"},
    "prompts": {"prompts.json", "digests.json"},
    "sheet": {"sheets/x4-upscaling.png"},
    "results": set(),
    "front": set(),
    "vector figure": set(),
    "index": set(),
}
"""What a repair writes, beside tables and figure, that needs no sampling."""
TABLES = damage.TABLES


CASES = [(kind, how) for kind in OWN for how in ("flip", "cut", "gone")]
CASES.remove(("index", "gone"))  # a report without an index is one of an older version, and whole


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_a_file_that_needs_no_sampling_is_the_same_again(run: Path, whole: Path, kind: str, how: str) -> None:
    before, file = damage.stamps(run), damage.file_of(run, kind)
    if how == "flip":
        damage.flip(file, 200)
    else:
        damage.cut(file, 100) if how == "cut" else file.unlink()
    found = repaired(run)
    name = file.relative_to(run).as_posix()
    assert file.read_bytes() == (whole / name).read_bytes()
    assert any(line.startswith(f"{name}: made again") for line in found.repaired)
    assert damage.changed(before, run) <= OWN[kind] | (TABLES if file.name in TABLES else set())
    assert_same_numbers_and_pixels(run, whole)


@pytest.mark.parametrize("kind", ["manifest", "features"])
def test_a_damaged_shard_is_drawn_again_and_the_others_are_left_alone(
    run: Path, whole: Path, kind: str
) -> None:
    file = damage.file_of(run, kind)
    damage.flip(file, 300)
    before = damage.stamps(run)
    repaired(run)
    assert_same_numbers_and_pixels(run, whole)
    shard = file.parent.relative_to(run).as_posix()
    checkpoint, first = file.parts[-3], int(file.parts[-2][:6])
    captions = [prompt["caption_id"] for prompt in RunFolder(run).read_prompts()][first : first + 2]
    allowed = {f"{shard}/manifest.json", f"{shard}/features.npz"} | TABLES
    allowed |= {
        f"images/{checkpoint}_g{scale}/{caption}.png" for scale in ("1.5", "3") for caption in captions
    }
    assert {name for name in damage.changed(before, run) if not name.startswith("sessions/")} <= allowed
    moved = next((run / "quarantine").glob(f"*/{shard}"))
    assert (moved / file.name).read_bytes() == before[f"{shard}/{file.name}"][1]
    features = [np.load(folder / shard / "features.npz") for folder in (run, whole)]
    for name in features[0]:
        np.testing.assert_array_equal(features[0][name], features[1][name])


def test_blocks_are_cut_as_they_were_whatever_the_record_says(run: Path) -> None:
    """The run was begun with two captions a shard and went on with three."""
    store = RunFolder(run)
    shutil.rmtree(run / "shards" / "512-base")
    (run / "results.csv").unlink()
    sd2eval.run_sweep(*damage.SMALL, "shard_size=3", f"out={run}")
    before, results = store.blocks("512-base"), (run / "results.csv").read_bytes()
    assert [len(block) for block in before] == [3, 3]
    for block in before:
        damage.flip(run / "shards" / "512-base" / block.key / "features.npz", 99)
    repaired(run)
    assert store.blocks("512-base") == before
    assert (run / "results.csv").read_bytes() == results


def test_many_kinds_of_damage_at_once(run: Path, whole: Path) -> None:
    for kind in ("features", "png", "results", "session", "sheet", "prompts", "digests", "reference"):
        damage.flip(damage.file_of(run, kind), 321)
    shutil.rmtree(run / "shards" / "512-base" / "000000-000001")
    found = repaired(run)
    assert_same_numbers_and_pixels(run, whole)
    assert any("energy it recorded is in no table" in line for line in found.repaired)


def test_pngs_that_changed_places_are_put_back_without_drawing(run: Path, whole: Path) -> None:
    one, other, *_ = sorted((run / "images" / "512-base_g3").iterdir())
    raw = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(raw)
    before = damage.stamps(run)
    repaired(run)
    assert damage.changed(before, run) == {file.relative_to(run).as_posix() for file in (one, other)}
    assert_same_numbers_and_pixels(run, whole)


def test_a_png_whose_pixels_are_lost_is_drawn_again_with_its_shard(run: Path, whole: Path) -> None:
    damage.cut(damage.file_of(run, "png"), 60)
    repaired(run)
    assert_same_numbers_and_pixels(run, whole)


def test_a_run_of_a_cluster_is_repaired_here_and_what_jobs_printed_stays(run: Path, whole: Path) -> None:
    """Whatever engine made it, and whatever settings that had in the version that recorded them."""
    store = RunFolder(run)
    info = store.read_info()
    info.config["engine"] = {"name": "slurm", "workers": 64, "of_another_version": 1}
    store.write_info(info)
    left = damage.leave(run)
    damage.flip(damage.file_of(run, "features"), 300)
    repaired(run)
    assert_same_numbers_and_pixels(run, whole)
    for name, text in left.items():
        if name.startswith("slurm/"):
            assert (run / name).read_text() == text
    assert {"claims", "failed"}.isdisjoint(entry.name for entry in run.iterdir())
    moved = {file.relative_to(run / "quarantine" / "0001").parts[0] for file in run.glob("quarantine/0001/*")}
    assert moved.isdisjoint({".writer", "claims", "failed", "slurm"})


def test_what_is_too_many_is_moved_aside(run: Path, whole: Path) -> None:
    shutil.copy(damage.file_of(run, "png"), run / "images" / "512-base_g3" / "1.png")
    shards = run / "shards" / "512-base"
    shutil.copytree(shards / "000002-000003", shards / "000002-000009")
    found = repaired(run)
    assert_same_numbers_and_pixels(run, whole)
    assert not (shards / "000002-000009").exists()
    assert (run / "quarantine" / "0001" / "images" / "512-base_g3" / "1.png").is_file()
    assert all("moved aside" in line for line in found.repaired)


def test_a_whole_run_is_not_touched_by_a_repair(run: Path) -> None:
    before = damage.stamps(run)
    assert sd2eval.verify_run(run, repair=True).repaired == []
    assert damage.changed(before, run) == set()
    assert not (run / "quarantine").exists()


def test_nothing_is_drawn_of_a_run_that_was_never_finished(run: Path) -> None:
    for name in TABLES:
        (run / name).unlink()
    shutil.rmtree(run / "shards" / "x4-upscaling" / "000004-000005")
    damage.flip(run / "shards" / "512-base" / "000002-000003" / "features.npz", 99)
    before = damage.stamps(run)
    found = sd2eval.verify_run(run, repair=True)
    assert found.whole
    assert any("not drawn again yet" in line for line in found.repaired)
    assert not any(name.startswith("sessions/") for name in damage.changed(before, run))
    assert not (run / "shards" / "512-base" / "000002-000003").exists()


def test_a_repair_that_cannot_be_done_moves_nothing(run: Path) -> None:
    damage.flip(damage.file_of(run, "features"), 99)
    before = damage.stamps(run)
    with pytest.raises(InputError, match=r"data.root=/nowhere: no such folder"):
        sd2eval.verify_run(run, repair=True, data_root="/nowhere")
    assert damage.changed(before, run) == set()
    with RunFolder(run).lock(), pytest.raises(InputError, match="a sweep is writing here"):
        sd2eval.verify_run(run, repair=True)
    assert damage.changed(before, run) == set()


@pytest.mark.parametrize("kind", damage.KINDS)
def test_what_cannot_be_read_is_not_taken_for_damaged(kind: str, run: Path) -> None:
    """A shard is damaged as well, which a repair would see to."""
    file = damage.file_of(run, kind)
    damage.cut(run / "shards" / "512-base" / "000004-000005" / "features.npz", 99)
    before = damage.stamps(run)
    words = rf"{re.escape(str(file))}: cannot be read \(Permission denied\); .* nothing was moved: make it"
    with damage.closed(file), pytest.raises(InputError, match=words) as refused:
        sd2eval.verify_run(run, repair=True)
    assert "\n" not in str(refused.value)
    assert damage.changed(before, run) == set()
    assert not (run / "quarantine").exists()


def test_other_pixels_than_before_are_said(run: Path) -> None:
    """As on another machine: the digests of the old shard are not those of what is drawn here."""
    store = RunFolder(run)
    folder = run / "shards" / "512-base" / "000002-000003"
    manifest = store.read_manifest("512-base", store.blocks("512-base")[1])
    manifest["images"][0]["sha256"] = 64 * "0"
    store.write_sealed((folder / "manifest.json").relative_to(run).as_posix(), manifest)
    found = repaired(run)
    assert any("1 of 4 images have other pixels than before" in line for line in found.repaired)


def test_a_record_without_a_copy_is_not_invented(run: Path) -> None:
    (run / "digests.json").unlink()
    damage.cut(run / "run.json", 500)
    with pytest.raises(InputError, match=r"run.json: cannot be made again"):
        sd2eval.verify_run(run, repair=True)


def test_a_repair_killed_anywhere_goes_on(run: Path, whole: Path) -> None:
    """Killed at the n-th rename or write: nothing is lost, and the same command ends whole."""
    damage.flip(damage.file_of(run, "features"), 99)
    damage.flip(damage.file_of(run, "prompts"), 99)
    program = (
        "import os, sys, sd2eval\n"
        "left = int(sys.argv[2])\n"
        "def watch(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.mkdir') and 'run' in str(arguments[0]):\n"
        "        left -= 1\n"
        "        if left < 0: os._exit(9)\n"
        "sys.addaudithook(watch)\n"
        "sd2eval.verify_run(sys.argv[1], repair=True)\n"
    )
    for steps in (2, 9):
        done = subprocess.run([sys.executable, "-c", program, str(run), str(steps)], timeout=120)
        assert done.returncode == 9
    found = sd2eval.verify_run(run, repair=True)
    assert found.findings == []
    assert_same_numbers_and_pixels(run, whole)


@pytest.mark.parametrize("moved", [1, 2, 8, 10])
def test_a_sweep_goes_on_with_what_a_killed_repair_moved(
    moved: int, run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = quarantine.move

    def killed(store: RunFolder, note: quarantine.Note) -> None:
        move(store, dataclasses.replace(note, moved=note.moved[:moved]))
        raise KeyboardInterrupt

    damage.flip(damage.file_of(run, "features"), 99)
    monkeypatch.setattr(quarantine, "move", killed)
    with pytest.raises(Stopped):
        sd2eval.verify_run(run, repair=True)
    monkeypatch.undo()
    sweep = [*damage.SMALL, f"out={run}"]
    if moved <= len(planned.DERIVED):  # what is damaged is still there
        with pytest.raises(InputError, match=rf"damaged shard .*verify {run} --repair`"):
            sd2eval.run_sweep(*sweep)
        sd2eval.verify_run(run, repair=True)
    sd2eval.run_sweep(*sweep)
    assert sd2eval.verify_run(run).findings == []
    assert_same_numbers_and_pixels(run, whole)


def test_a_sweep_writes_the_tables_that_a_killed_repair_left(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session is lost, and the energy in the tables is more than what is left adds up to."""
    damage.flip(damage.file_of(run, "session"), 99)
    monkeypatch.setattr(repair.Repair, "end", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(Stopped):
        sd2eval.verify_run(run, repair=True)
    monkeypatch.undo()
    sd2eval.run_sweep(*damage.SMALL, f"out={run}")
    assert sd2eval.verify_run(run).findings == []


def test_a_stopped_repair_ends_with_the_code_for_resumable(run: Path, whole: Path) -> None:
    shutil.rmtree(run / "shards")
    command = [sys.executable, "-m", "sd2eval", "verify", str(run), "--repair"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (run / "shards").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 75), err
    assert "run the same command again" in err or process.returncode == 0
    assert main(["verify", str(run), "--repair", "progress=false"]) == 0
    assert_same_numbers_and_pixels(run, whole)


def test_a_sweep_that_meets_damage_names_the_way_out(run: Path) -> None:
    damage.flip(damage.file_of(run, "features"), 99)
    (run / "results.csv").unlink()
    with pytest.raises(InputError, match=rf"damaged shard .*verify {run} --repair`"):
        sd2eval.run_sweep(*damage.SMALL, f"out={run}")


def test_the_record_is_written_from_its_copy(run: Path) -> None:
    right = RunFolder(run).read_info()
    data = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(data | {"reference_n": 7}))
    repaired(run)
    assert RunInfo(**json.loads((run / "run.json").read_bytes())) == right
