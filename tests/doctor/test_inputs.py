"""Weights that are missing, changed or other ones, hubs that are silent, disks that are too small."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from sd2eval.config import CheckpointConfig, from_overrides
from sd2eval.doctor import network, room, weights
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from sd2eval.doctor.plan import Plan, composed
from sd2eval.weights.published import published
from tests.models_world import World, a_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("no_proxy", "*")
    with a_world(tmp_path, monkeypatch) as found:
        yield found


def look(world: World, *names: str) -> tuple[list[Finding], weights.Wanted]:
    wanted = weights.Wanted(world.table)
    return [weights.held(published(world.table)[name], wanted) for name in names], wanted


def test_what_is_missing_is_named_with_its_size_and_the_command(world: World) -> None:
    (finding,), wanted = look(world, "first")
    assert finding.level == WARNING
    assert "not on this machine, about 200.0 kB" in finding.found
    assert finding.advice == "python -m sd2eval models fetch first"
    assert [entry.name for entry in wanted.missing] == ["first"]


def test_offline_what_is_missing_is_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (finding,), wanted = look(world, "first")
    assert finding.level == PROBLEM
    assert "HF_HUB_OFFLINE is set" in finding.found
    (hub,) = network.hosts(wanted)
    assert "nothing is asked" in hub.found
    assert world.server.log == []


def test_what_was_fetched_is_verified_and_the_hub_is_not_asked(world: World) -> None:
    world.fetch("first", "unpublished", "address")
    world.server.log.clear()
    findings, wanted = look(world, "first", "unpublished", "address")
    assert [finding.level for finding in findings] == [OK, OK, OK]
    assert all("verified" in finding.found for finding in findings)
    (hub,) = network.hosts(wanted)
    assert (hub.level, hub.found) == (OK, "not needed: nothing has to be fetched")
    assert world.server.log == []


def changed(world: World, name: str) -> None:
    """Replace a fetched file by another one of its size."""
    path = weights.holding(published(world.table)[name]).path
    assert path is not None
    real = path.resolve()
    real.write_bytes(bytes(real.stat().st_size))


@pytest.mark.parametrize(("name", "advice"), [("first", "models fetch"), ("unpublished", "models forget")])
def test_a_file_with_another_digest_is_a_problem(world: World, name: str, advice: str) -> None:
    world.fetch(name)
    changed(world, name)
    (finding,), _ = look(world, name)
    assert finding.level == PROBLEM
    assert "another SHA-256" in finding.found
    assert f"{advice} {name}" in finding.advice


def test_a_large_file_that_changed_is_left_to_verify(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HASHED_AT_ONCE", 1000)
    world.fetch("first")
    changed(world, "first")
    (finding,), _ = look(world, "first")
    assert finding.level == WARNING
    assert finding.advice == "python -m sd2eval models verify first"


def mini(**changes: object) -> CheckpointConfig:
    (definition,) = from_overrides("checkpoints=[512-base]")[1]
    return dataclasses.replace(definition, **changes)  # type: ignore[arg-type]


def test_the_package_has_its_own_weights() -> None:
    wanted = weights.Wanted()
    (finding,) = weights.checkpoints([mini()], wanted)
    assert (finding.level, finding.found) == (OK, "512-base: comes with the package")
    assert wanted.missing == []
    (size,) = wanted.checkpoint_bytes
    assert size is not None
    assert 1e6 < size < 50e6


def test_a_folder_that_lacks_a_part_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (finding,) = weights.checkpoints(
        [mini(name="mine", source=str(tmp_path), components={})], weights.Wanted()
    )
    assert finding.level == PROBLEM
    assert f"no folder {tmp_path}/vae" in finding.found


def test_a_torn_file_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"\x10\x27")
    definition = mini(name="mine", source=str(file), architecture="sd2-base", components={})
    (finding,) = weights.checkpoints([definition], weights.Wanted())
    assert finding.level == PROBLEM
    assert str(file) in finding.found


@pytest.mark.parametrize(
    "source", ["./absent.safetensors", "absent.ckpt", "/no/such/folder", "a folder/of/mine"]
)
def test_a_file_that_is_not_there_is_not_asked_of_the_hub(source: str) -> None:
    wanted = weights.Wanted()
    (finding,) = weights.checkpoints([mini(name="mine", source=source)], wanted)
    assert (finding.level, wanted.elsewhere) == (PROBLEM, [])


def test_a_repository_of_ones_own_is_looked_for_in_the_cache(world: World) -> None:
    wanted = weights.Wanted(world.table)
    (finding,) = weights.checkpoints([mini(name="mine", source="me/mine", file="x.ckpt")], wanted)
    assert (finding.level, wanted.elsewhere) == (WARNING, ["me/mine"])
    assert network.needed(wanted) == [world.server.endpoint]


def test_noise_levels_share_one_line() -> None:
    _, definitions = from_overrides("checkpoints=[x4-upscaling]", "noise_levels=[10,20,30]")
    assert len(list(weights.checkpoints(definitions, weights.Wanted()))) == 1


def test_each_network_of_the_metrics_is_looked_for_once(world: World) -> None:
    config, definitions = from_overrides("experiment=model_card", "data.root=.", "checkpoints=[512-base-ema]")
    wanted = weights.Wanted()
    found = list(weights.networks(config.protocol, definitions, wanted))
    assert [finding.about for finding in found] == ["inception", "open_clip_vit_g_14"]
    assert {entry.name for entry in wanted.missing} == {"inception", "open_clip_vit_g_14"}
    hosts = network.needed(wanted)
    assert hosts[0] == world.server.endpoint
    assert len(hosts) == 2


def test_a_network_whose_copy_is_not_there_is_a_problem(tmp_path: Path) -> None:
    config, definitions = from_overrides(f"protocol.distance.source={tmp_path}/absent")
    found = {
        finding.about: finding.level
        for finding in weights.networks(config.protocol, definitions, weights.Wanted())
    }
    assert found["mini_classifier"] == PROBLEM
    assert found["mini_clip"] == OK


def test_a_hub_that_answers_is_enough_whatever_it_says(world: World) -> None:
    _, wanted = look(world, "first")
    (finding,) = network.hosts(wanted)
    assert finding.level == OK
    assert len(world.server.log) == 1


def test_a_hub_that_never_answers_is_a_problem_after_a_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "SECONDS", 0.3)
    world.server.faults.silent = True
    _, wanted = look(world, "first")
    (finding,) = network.hosts(wanted)
    assert finding.level == PROBLEM
    assert "no answer within 0.3 s" in finding.found
    assert "HTTPS_PROXY" in finding.advice


def test_a_hub_that_is_down_is_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        _, wanted = look(world, "first")
        (finding,) = network.hosts(wanted)
    assert finding.level == PROBLEM
    assert "Connection refused" in finding.found
    world.server.faults.statuses = [503]
    assert network.silence(world.server.endpoint) == "answers 503"


def test_an_address_that_is_none_is_told(world: World) -> None:
    assert "cannot be reached" in network.silence("huggingface.co")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return composed((f"out={tmp_path / 'run'}", "checkpoints=[512-base]"), None)


def test_free_space_is_compared_with_the_dry_runs_estimate(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 scales x 64 captions: PNGs of 64 pixels at 0.56 of their raw bytes, 32 and 96 float32 features
    need = 512 * (3 * 64**2 * 0.56 + 4 * (32 + 96))
    levels = {}
    for share in (0.9, 1.1, 1.3):
        usage = SimpleNamespace(free=int(share * need))
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        (finding,) = room.disk(plan, {})
        levels[share] = finding.level
    assert levels == {0.9: PROBLEM, 1.1: WARNING, 1.3: OK}


def test_a_plan_that_is_too_large_for_the_real_disk_is_a_problem(plan: Plan, tmp_path: Path) -> None:
    (finding, *_) = room.disk(dataclasses.replace(plan, images_left=10**13), {})
    assert finding.level == PROBLEM
    assert "images=grid" in finding.advice


def test_downloads_to_the_same_disk_are_added(plan: Plan, tmp_path: Path) -> None:
    (finding,) = room.disk(plan, {tmp_path / "hub": 5_000_000_000_000_000})
    assert finding.level == PROBLEM
    assert "5000.0 TB needed" in finding.found
    assert f"{tmp_path / 'run'}, {tmp_path / 'hub'}" in finding.found


def test_too_few_names_for_the_images_are_a_problem(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.statvfs("/")
    fields = {name: getattr(usual, name) for name in dir(usual) if name.startswith("f_")}
    full = SimpleNamespace(**fields | {"f_files": 10**6, "f_favail": 3})
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    _, finding = room.disk(plan, {})
    assert (finding.level, "3 more files" in finding.found) == (PROBLEM, True)


def test_the_embedded_data_set_is_there(plan: Plan) -> None:
    (finding,) = room.data(plan)
    assert (finding.level, finding.found) == (OK, "mini: 64 captions, 512 images")


def test_a_data_set_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    absent = composed(("experiment=model_card", f"data.root={tmp_path}/coco"), None)
    (finding,) = room.data(absent)
    assert finding.level == PROBLEM
    assert f"{tmp_path}/coco: no such folder" in finding.found
    assert "data fetch coco" in finding.advice


def test_memory_holds_one_checkpoint_and_all_networks_but_on_a_gpu_only_the_largest() -> None:
    sizes = ([4_000_000_000, 5_000_000_000], [1_000_000_000, 6_000_000_000])
    assert room.memory_need(*sizes, on_gpu=False) == 2e9 + 5e9 + 7e9
    assert room.memory_need(*sizes, on_gpu=True) == 2e9 + 6e9
    assert room.memory_need([None], [], on_gpu=True) == 2e9 + room.UNKNOWN_BYTES


def test_sensors_are_read_or_the_line_says_what_is_assumed(plan: Plan) -> None:
    (finding,) = room.energy(plan.config)
    readable = any(os.access(file, os.R_OK) for file in Path("/sys/class/powercap").glob("*/energy_uj"))
    if not readable:
        assert finding.level == WARNING
        assert "modelled" in finding.found
        assert "energy_uj" in finding.advice
    assert finding.check == "energy"
