from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sd2eval import selfcheck
from sd2eval.checkpoints import Checkpoint
from sd2eval.errors import InputError
from sd2eval.fixture import SHIPPED, Fixture, find_fixtures, load_fixture, read_fixture, weights_of
from tests import parity

CPU = torch.device("cpu")


@pytest.mark.parametrize("variant", parity.VARIANTS)
def test_every_number_of_the_original_code_is_reached(variant: str) -> None:
    fixture = read_fixture(parity.folder(variant))
    checkpoint = load_fixture(fixture, weights_of(fixture), CPU, torch.float32)
    errors = {
        check.what: check.error for check in selfcheck.check_fixture(fixture, checkpoint, torch.float32)
    }
    assert len(errors) >= 3 + 9 + 1  # ids and texts, latents at nine scales, an image
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.parametrize("variant", ["v", "depth"])
def test_a_ckpt_holds_the_same_weights_as_its_safetensors(variant: str) -> None:
    fixture = read_fixture(parity.folder(variant))
    both: list[Checkpoint] = [
        load_fixture(fixture, fixture.folder / f"model.{suffix}", CPU, torch.float32)
        for suffix in ("ckpt", "safetensors")
    ]
    for part in ("unet", "vae"):
        ours, theirs = (getattr(checkpoint, part).state_dict() for checkpoint in both)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (checkpoint.text_encoder.model.state_dict() for checkpoint in both)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def small(tmp_path: Path, factor: float = 1.0) -> Path:
    """Return the shipped base fixture with one caption at one scale, its latent multiplied by a factor."""
    copy = tmp_path / "base"
    shutil.copytree(SHIPPED / "base", copy)
    given, expected = (load_file(copy / f"{name}.safetensors") for name in ("inputs", "expected"))
    save_file({name: tensor[:1].contiguous() for name, tensor in given.items()}, copy / "inputs.safetensors")
    meta = copy / "meta.json"
    meta.write_text(json.dumps({"prompts": json.loads(meta.read_text())["prompts"][:1]}))
    kept = {"latent_3.0": expected["latent_3.0"][:1] * factor, "image_3.0": expected["image_3.0"][:1]}
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, copy / "expected.safetensors")
    return copy


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sd2eval", "selfcheck", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_numbers_that_are_the_originals_pass_with_exit_code_zero(tmp_path: Path) -> None:
    done = run(f"fixtures={small(tmp_path)}", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: all 5 numbers" in done.stdout


def test_a_number_that_is_off_by_a_thousandth_fails_with_exit_code_one(tmp_path: Path) -> None:
    done = run(f"fixtures={small(tmp_path, 1.001)}")
    assert done.returncode == 1
    assert "FAIL: 1 of 5 numbers are not the original's; worst: base, latent at guidance 3" in done.stdout
    assert done.stderr == ""


def test_half_precision_passes_within_its_own_limits_and_fails_those_of_float32(tmp_path: Path) -> None:
    fixture = read_fixture(small(tmp_path))
    checkpoint = load_fixture(fixture, weights_of(fixture), CPU, torch.bfloat16)
    checks = list(selfcheck.check_fixture(fixture, checkpoint, torch.bfloat16))
    assert all(check.passed for check in checks)
    worst = max(check.error for check in checks if check.what.startswith("latent"))
    assert worst > selfcheck.LIMITS[torch.float32]["latent"]


def test_nan_does_not_pass() -> None:
    assert not selfcheck.Check("base", "latent", float("nan"), 1.0).passed


def test_a_folder_of_fixtures_and_a_fixture_are_both_found() -> None:
    assert [path.name for path in find_fixtures(None)] == ["base", "x4"]
    assert find_fixtures(SHIPPED / "x4") == [SHIPPED / "x4"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "inputs.safetensors").unlink(), "inputs.safetensors cannot be read"),
        (lambda path: (path / "expected.safetensors").write_bytes(b"torn"), "expected.safetensors cannot be"),
        (lambda path: save_file({"c": torch.zeros(1)}, path / "inputs.safetensors"), "has no tokens"),
        (lambda path: (path / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
        (lambda path: (path / "config.yaml").write_text("model: 3"), "no configuration of Stable Diffusion"),
    ],
)
def test_a_damaged_fixture_is_named_in_one_line(tmp_path: Path, damage: object, message: str) -> None:
    copy = tmp_path / "base"
    shutil.copytree(SHIPPED / "base", copy)
    damage(copy)  # type: ignore[operator]

    def load() -> None:
        fixture: Fixture = read_fixture(copy)
        load_fixture(fixture, weights_of(fixture), CPU, torch.float32)

    with pytest.raises(InputError, match=message) as caught:
        load()
    assert "\n" not in str(caught.value)


def rewrite(path: Path, name: str, **changes: torch.Tensor | None) -> None:
    """Change, add or (None) remove tensors of a fixture's file."""
    tensors = load_file(path / f"{name}.safetensors") | changes
    kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_file(kept, path / f"{name}.safetensors")


def retype(path: Path, old: str, new: str) -> None:
    file = path / "config.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("variant", "damage"),
    [
        ("base", lambda path: retype(path, "in_channels: 4", "in_channels: 6")),
        ("base", lambda path: (path / "text_encoder" / "config.json").write_text("[1]")),
        ("base", lambda path: rewrite(path, "inputs", x_T=torch.zeros(1, 4, 16))),
        ("base", lambda path: rewrite(path, "inputs", tokens=torch.full((2, 77), 5000))),
        ("base", lambda path: rewrite(path, "expected", **{"latent_3.0": torch.ones(1, 4, 16, 16)})),
        ("x4", lambda path: rewrite(path, "inputs", c_concat_20=None)),
        ("x4", lambda path: rewrite(path, "inputs", lowres=None)),
    ],
)
def test_parts_that_do_not_fit_are_no_failed_check(
    tmp_path: Path, variant: str, damage: Callable[[Path], object]
) -> None:
    copy = tmp_path / variant
    shutil.copytree(SHIPPED / variant, copy)
    rewrite(
        copy, "expected", **{f"latent_{scale}": None for scale in (1.0, 1.5, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0)}
    )
    damage(copy)
    with pytest.raises(InputError, match=f"fixtures={copy}: its parts do not fit each other") as caught:
        selfcheck.run_selfcheck(copy, "cpu")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_scale_is_left_alone(tmp_path: Path) -> None:
    copy = small(tmp_path)
    rewrite(copy, "expected", **{"latent_1.2.3": torch.ones(1), "latent_demo_3.0": torch.ones(1)})
    assert read_fixture(copy).scales == [3.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dtype=int8"], "'int8': no such dtype"),
        (["device=tpu"], "device=tpu"),
        (["fixtures=nowhere"], "fixtures=nowhere: no fixture in it"),
        (["base"], "usage: python -m sd2eval selfcheck"),
        (["fixture=x"], "did you mean 'fixtures'"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_two(words: list[str], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
