"""`obtain`: one answer to where the published weights of a name are, fetched once and checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from sd2eval.errors import InputError
from sd2eval.weights import hub, models
from tests.models_world import CONTENTS, World, a_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(tmp_path, monkeypatch) as made:
        yield made


def obtain(world: World, name: str) -> Path:
    return models.obtain(name, progress=False, table=world.table)


def refusal(world: World, name: str) -> str:
    with pytest.raises(InputError) as caught:
        obtain(world, name)
    line = str(caught.value)
    assert "\n" not in line
    return line


def torch_file() -> Path:
    return Path(os.environ["TORCH_HOME"], "hub", "checkpoints", "net.pth")


@pytest.mark.parametrize("name", ["first", "unpublished", "address"])
def test_the_first_call_fetches_and_the_next_ones_neither_ask_nor_hash(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = obtain(world, name)
    assert path.read_bytes() == CONTENTS.get(name, b"weights of a network")
    assert world.state(name) == "verified"
    world.server.log.clear()
    monkeypatch.setattr(models, "file_digest", None)  # hashing would call it
    assert obtain(world, name) == path
    assert world.server.log == []


def test_what_lay_there_before_is_hashed_once(world: World) -> None:
    torch_file().parent.mkdir(parents=True)
    torch_file().write_bytes(b"weights of a network")
    assert obtain(world, "address") == torch_file()
    assert world.server.log == []
    assert world.state("address") == "verified"


def test_a_file_that_changed_after_it_was_hashed_is_refused(world: World) -> None:
    for name in ("first", "address"):
        path = obtain(world, name)
        path.resolve().write_bytes(b"altered " + path.read_bytes()[8:])
        os.utime(path.resolve(), ns=(1, 1))
        assert f"models fetch {name}" in refusal(world, name)


def test_a_damaged_download_in_the_hubs_cache_is_fetched_anew_after_it_was_refused(world: World) -> None:
    path = obtain(world, "first")
    path.resolve().write_bytes(b"cut")
    assert "removed from the cache" in refusal(world, "first")
    assert obtain(world, "first").read_bytes() == CONTENTS["first"]


def test_a_transfer_that_broke_off_goes_on(world: World) -> None:
    whole = CONTENTS["first"]
    blob = hub.cache_root() / "models--owner--first" / "blobs"
    world.server.faults.cut_after = 90_000
    path = obtain(world, "first")
    assert path.read_bytes() == whole
    assert len(world.server.bodies()) > 1
    assert not list(blob.glob(".*.part"))


@pytest.mark.parametrize("name", ["first", "address"])
def test_offline_what_is_here_is_used_and_what_is_not_is_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = refusal(world, name)
    assert line.startswith(f"{name}: HF_HUB_OFFLINE is set")
    assert f"models fetch {name}" in line
    assert "`source=`" in line
    assert "checkpoint.source" not in line
    assert world.server.log == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    path = obtain(world, name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert obtain(world, name) == path


def test_other_content_at_the_address_is_refused(world: World) -> None:
    world.server.faults.corrupt = True
    assert "not the file wanted" in refusal(world, "address")
    assert not torch_file().exists()


def test_a_name_that_is_not_in_the_table_is_refused_with_the_nearest(world: World) -> None:
    assert "did you mean 'first'?" in refusal(world, "frist")
