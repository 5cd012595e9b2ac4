from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.plan import Block
from sd2eval.records import SCHEMA_VERSION, EnergyReading, ImageRecord, RunInfo
from sd2eval.store import RunFolder, read_cached, write_bytes, write_cached

READING = EnergyReading(stage="sample", seconds=1.0, kwh=1e-6, kg_co2=4e-7, method="estimated")
IMAGE = ImageRecord(caption_id=5, guidance_scale=1.5, sha256="00", truncated=False)


def info(**changes: object) -> RunInfo:
    values = {
        "schema_version": SCHEMA_VERSION,
        "identity": "i",
        "identity_fields": {},
        "config": {},
        "digests": {},
    }
    return RunInfo(**(values | changes))  # type: ignore[arg-type]


def publish(store: RunFolder, block: Block, value: float) -> None:
    store.publish("base", block, {"distance": np.full((len(block), 1, 3), value)}, [IMAGE], [READING], [1.5])


def test_a_published_shard_comes_back_whole(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    publish(store, Block(0, 1), 2.0)
    arrays, manifest = store.read_shard("base", Block(0, 1))
    assert store.blocks("base") == [Block(0, 1)]
    np.testing.assert_array_equal(arrays["distance"], np.full((2, 1, 3), 2.0))
    assert ImageRecord(**manifest["images"][0]) == IMAGE
    assert EnergyReading(**manifest["energy"][0]) == READING


def test_a_late_second_writer_cannot_replace_a_published_shard(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    publish(store, Block(0, 1), 2.0)
    publish(store, Block(0, 1), 3.0)
    arrays, _ = store.read_shard("base", Block(0, 1))
    assert (arrays["distance"] == 2.0).all()
    assert len(list((tmp_path / "shards" / "base").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_shard_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    store = RunFolder(tmp_path)
    publish(store, Block(0, 1), 2.0)
    file = tmp_path / "shards" / "base" / Block(0, 1).key / "features.npz"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.unlink() if damage == "gone" else file.write_bytes(data[:-9] if damage == "cut" else data)
    with pytest.raises(InputError, match="damaged shard"):
        store.read_shard("base", Block(0, 1))


def test_half_written_files_are_invisible_and_cleaned(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    publish(store, Block(0, 1), 2.0)
    (tmp_path / "shards" / "base" / ".tmp-000002-000003-abc").mkdir()
    (tmp_path / ".tmp-results.csv-abc").write_text("half")
    images = tmp_path / "images" / "base_g1.5"
    images.mkdir(parents=True)
    (images / ".5.png.123.tmp").write_text("half")
    assert store.blocks("base") == [Block(0, 1)]
    store.clean()
    assert not list(tmp_path.rglob(".*tmp*"))
    assert store.blocks("base") == [Block(0, 1)]


def test_write_bytes_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.txt", b"one")
    write_bytes(tmp_path / "a.txt", b"two")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"two"


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run here"):
        RunFolder(tmp_path).read_info()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": "x"}'])
def test_a_damaged_run_record_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="not a readable run record"):
        RunFolder(tmp_path).read_info()


def test_a_newer_run_is_refused_instead_of_misread(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    store.write_info(info(schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(InputError, match="newer sd2eval"):
        store.read_info()


def test_run_info_survives_the_disk(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    store.write_info(info(machine={"cores": 2}))
    assert store.read_info() == info(machine={"cores": 2})


def test_json_with_nan_is_refused_rather_than_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RunFolder(tmp_path).write_json("a.json", float("nan"))


def _hold(path: Path, ready: multiprocessing.synchronize.Event) -> None:
    with RunFolder(path).lock():
        ready.set()
        signal.pause()


def test_a_second_writer_is_refused_until_the_first_one_is_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(InputError, match=f"process {holder.pid}"), RunFolder(tmp_path).lock():
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with RunFolder(tmp_path).lock():
        pass


def test_cache_returns_what_was_written_and_nothing_for_a_torn_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path))
    assert read_cached("key") is None
    write_cached("key", np.arange(12.0).reshape(3, 4))
    found = read_cached("key")
    assert found is not None
    np.testing.assert_array_equal(found, np.arange(12.0).reshape(3, 4))
    file = tmp_path / "key.npy"
    file.write_bytes(file.read_bytes()[:-8])
    assert read_cached("key") is None


def test_sessions_come_back_in_order(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    store.write_session("b", [("base", READING)], "USA")
    store.write_session("a", [("", READING)], "FRA")
    assert [session["grid"] for session in store.read_sessions()] == ["FRA", "USA"]
    assert json.loads((tmp_path / "sessions" / "b.json").read_text())["readings"][0]["checkpoint"] == "base"


def test_cleaning_touches_nothing_that_is_not_a_runs(tmp_path: Path) -> None:
    mine = tmp_path / "notes" / ".draft.tmp"
    mine.parent.mkdir()
    mine.write_text("keep me")
    RunFolder(tmp_path).clean()
    assert mine.read_text() == "keep me"


def test_a_folder_with_other_things_in_it_is_refused_and_one_with_a_begun_run_is_not(tmp_path: Path) -> None:
    (tmp_path / "begun" / "sessions").mkdir(parents=True)
    (tmp_path / "begun" / ".lock").touch()
    RunFolder(tmp_path / "begun").refuse_foreign()
    RunFolder(tmp_path / "new").refuse_foreign()
    with pytest.raises(InputError, match="holds begun but no run"):
        RunFolder(tmp_path).refuse_foreign()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "file").refuse_foreign()


def test_a_folder_that_cannot_be_made_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="cannot be written"), RunFolder(Path("/proc/nope")).lock():
        pass
