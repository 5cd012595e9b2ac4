"""What `models fetch` and `models verify` make of a hub and of what is on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from sd2eval.errors import InputError
from sd2eval.weights import hub, models
from sd2eval.weights.first_use import recorded
from tests.models_world import CONTENTS, World, a_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(tmp_path, monkeypatch) as made:
        yield made


def test_fetch_puts_weights_where_the_hubs_cache_keeps_them_and_says_how_to_use_them(world: World) -> None:
    child = world.child("fetch", "first", "address")
    said, shown = child.communicate(timeout=60)
    assert child.returncode == 0, shown
    (path,) = world.home.glob("hub/models--owner--first/snapshots/*/first.ckpt")
    assert path.read_bytes() == CONTENTS["first"]
    assert f"first: the first weights is here and right: {path}" in said
    assert f"use it: checkpoint=first checkpoint.source={path}" in said
    assert Path(os.environ["TORCH_HOME"], "hub/checkpoints/net.pth").read_bytes() == b"weights of a network"
    assert world.state("first") == world.state("address") == "verified"


def test_a_fetch_that_was_killed_goes_on_where_it_was(world: World) -> None:
    world.server.faults.stall_after = 60_000
    child = world.child("fetch", "first")
    assert world.server.stalled.wait(30)
    while not any(part.stat().st_size == 60_000 for part in world.home.glob("hub/*/blobs/.*.part")):
        assert child.poll() is None
    child.kill()
    child.communicate()
    world.server.faults.stall_after = None
    world.server.log.clear()
    child = world.child("fetch", "first")
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 0, shown
    assert [request.headers.get("Range") for request in world.server.bodies()] == ["bytes=60000-"]
    assert world.state("first") == "verified"


def test_offline_what_is_not_in_the_cache_is_one_line(world: World) -> None:
    child = world.child("fetch", "first", HF_HUB_OFFLINE="1")
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 2
    assert shown.startswith("sd2eval: first: HF_HUB_OFFLINE is set")
    assert shown.count("\n") == 1
    assert world.server.log == []


def test_offline_what_is_in_the_cache_is_fetched_already(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fetch("first")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is here and right" in world.fetch("first")


def test_other_weights_under_the_right_name_are_refused_named_and_removed(world: World) -> None:
    world.server.put("owner/first", "first.ckpt", CONTENTS["second"])
    line = world.refusal("first")
    assert "it is second: the second weights, not the first weights" in line
    assert "removed from the cache" in line
    assert world.state("first") == "missing"
    world.server.put("owner/first", "first.ckpt", CONTENTS["first"])
    world.fetch("first")
    assert world.state("first") == "verified"


def test_weights_that_nobody_knows_are_refused(world: World) -> None:
    world.server.put("owner/first", "first.ckpt", b"something else")
    assert "it is no file that sd2eval knows" in world.refusal("first")
    assert world.state("first") == "missing"


def test_a_damaged_file_in_the_cache_is_removed_and_a_foreign_one_is_not(world: World) -> None:
    world.fetch("first")
    path = hub.in_cache("owner/first", "first.ckpt")
    assert path is not None
    path.resolve().write_bytes(CONTENTS["first"][:-1] + b"?")
    assert "removed" in world.refusal("first")
    assert "is here and right" in world.fetch("first")

    world.server.put("owner/first", "first.ckpt", b"something else")
    kept = hub.file("owner/first", "first.ckpt", progress=False)
    assert "stays there" in world.refusal("first")
    assert kept.is_file()


def test_where_no_digest_is_published_the_first_one_holds(world: World) -> None:
    assert "is here and right" in world.fetch("unpublished")
    (use,) = recorded()
    assert (use.name, use.origin) == ("unpublished", "owner/unpublished")
    assert world.state("unpublished") == "verified"
    changed = world.server.put("owner/unpublished", "unpublished.ckpt", b"moved on")
    line = world.refusal("unpublished")
    assert use.sha256 in line
    assert changed in line
    models.forget("unpublished", say=world.said.append)
    world.fetch("unpublished")
    assert [use.sha256 for use in recorded()] == [changed]


def test_fetching_all_takes_what_the_study_needs_and_goes_on_after_a_failure(world: World) -> None:
    del world.server.files["owner/first"]
    line = world.refusal("all")
    assert line == "1 of 2 were not fetched, see above: first"
    assert [world.state(name) for name in ("first", "second", "unpublished")] == [
        "missing",
        "missing",
        "verified",
    ]
    assert world.said[0].startswith("first: owner/first is not on")


def test_an_address_with_other_content_is_refused(world: World) -> None:
    world.server.faults.corrupt = True
    assert "not the file wanted" in world.refusal("address")
    assert world.state("address") == "missing"


def test_what_does_not_fit_in_all_is_refused_before_the_first_download(world: World) -> None:
    text = world.table.read_text().replace("200000", "9" * 18)
    vast = world.table.with_name("vast.csv")
    vast.write_text(text)
    world.table = vast
    assert "fetching 2 files needs" in world.refusal("all")
    assert world.server.log == []


def test_verify_hashes_what_is_here_and_misses_nothing_else(world: World) -> None:
    world.fetch("first", "unpublished")
    right, said = world.verify()
    assert right
    assert "first: right (" in said
    assert "unpublished: as recorded at first use on" in said
    assert "second: not on this machine" in said


def test_verify_finds_the_file_that_is_wrong_and_says_what_it_is(world: World) -> None:
    world.fetch("first")
    path = hub.in_cache("owner/first", "first.ckpt")
    assert path is not None
    path.resolve().write_bytes(CONTENTS["second"])
    assert world.state("first") == "not verified"
    right, said = world.verify("first")
    assert not right
    assert "first: WRONG" in said
    assert "it is second: the second weights" in said
    assert world.state("first") == "wrong"


def test_verify_of_a_name_that_is_not_here_is_a_mistake(world: World) -> None:
    with pytest.raises(InputError, match="models fetch first"):
        world.verify("first")
    with pytest.raises(InputError, match="did you mean 'first'"):
        world.verify("fisrt")
    with pytest.raises(InputError, match=r"gone\.ckpt: no such file"):
        world.verify("gone.ckpt")


def test_a_file_is_told_by_its_digest_whatever_it_is_called(world: World, tmp_path: Path) -> None:
    file = tmp_path / "first.ckpt"
    file.write_bytes(CONTENTS["second"])
    assert world.verify(str(file)) == (True, f"{file} is second: the second weights")
    file.write_bytes(b"of my own")
    right, said = world.verify(str(file))
    assert not right
    assert "none of the published ones" in said
    world.fetch("unpublished")
    file.write_bytes(CONTENTS["unpublished"])
    right, said = world.verify(str(file))
    assert right
    assert "first used as 'unpublished' from owner/unpublished" in said
