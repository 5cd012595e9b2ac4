from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sd2eval.checkpoints import sources
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError


def definition(source: str, **changes: object) -> CheckpointConfig:
    base = CheckpointConfig(
        name="mine", conditioning="text", prediction_type="epsilon", resolution=64, beta_start=0.00085,
        beta_end=0.012,
        text="open_clip", noise_level=None, architecture=None, lora_scale=1.0, source=source, file=None,
        revision=None, components={}, lora=None,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def make(root: Path, *components: str) -> Path:
    for name in components:
        (root / name).mkdir(parents=True)
        (root / name / "model.safetensors").write_bytes(name.encode())
        (root / name / "config.json").write_text("{}")
    return root


ALL = ("unet", "vae", "text_encoder", "tokenizer")


def test_a_local_folder_gives_every_component(tmp_path: Path) -> None:
    found = sources.resolve(definition(str(make(tmp_path, *ALL))))
    assert found.file is None
    assert found.folders == {name: tmp_path / name for name in ALL}


def test_a_component_can_come_from_elsewhere(tmp_path: Path) -> None:
    make(tmp_path / "a", "unet", "text_encoder", "tokenizer")
    make(tmp_path / "b", "vae")
    changed = definition(str(tmp_path / "a"), components={"vae": str(tmp_path / "b" / "vae")})
    assert sources.resolve(changed).folders["vae"] == tmp_path / "b" / "vae"


def test_a_missing_component_is_named(tmp_path: Path) -> None:
    make(tmp_path, "unet", "text_encoder", "tokenizer")
    with pytest.raises(InputError, match="for its vae"):
        sources.resolve(definition(str(tmp_path)))


@pytest.mark.parametrize("source", ["not a hub id!", "no/such/folder/here"])
def test_neither_folder_nor_hub_id_is_one_clear_line(source: str) -> None:
    with pytest.raises(InputError, match="hub id") as caught:
        sources.resolve(definition(source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["weights/my.safetensors", "my.ckpt", "./folder", "~/weights", "/nowhere"])
def test_a_path_that_is_not_there_is_not_asked_from_the_hub(source: str) -> None:
    with pytest.raises(InputError, match=f"checkpoint.source={source}: no such file or folder"):
        sources.resolve(definition(source))


def test_the_digest_sees_every_loaded_byte_and_no_other_file(tmp_path: Path) -> None:
    folders = sources.resolve(definition(str(make(tmp_path, *ALL))))
    before = sources.digest(folders)
    (tmp_path / "vae" / "README.md").write_text("not loaded")
    (tmp_path / "unet" / "model.fp16.safetensors").write_text("a half-precision copy beside it")
    assert sources.digest(folders) == before
    (tmp_path / "vae" / "config.json").write_text('{"scaling_factor": 1}')
    changed = sources.digest(folders)
    assert changed != before
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"other")
    assert sources.digest(folders) not in (before, changed)


def test_package_paths_point_into_the_package() -> None:
    found = sources.local_path("package:mini")
    assert found is not None
    assert (found / "__init__.py").exists()
