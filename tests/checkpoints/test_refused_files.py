"""Files and folders that are refused, and in which words."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.published_layout import State, write
from sd2eval.checkpoints.networks import load_networks
from sd2eval.checkpoints.sources import resolve
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError
from tests.narrow import definition, load, make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("published"))


class Canary:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.mark}'",))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy pickle"])
def test_code_in_a_pickle_is_not_run(folder: Path, tmp_path: Path, legacy: bool) -> None:
    file, mark = tmp_path / "evil.ckpt", tmp_path / "was here"
    state: dict[str, Any] = dict(load_file(folder / "sd2-base.safetensors"))
    torch.save({"state_dict": state, "extra": Canary(mark)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"code besides tensors .*system.* was not run") as caught:
        load(definition(folder, "sd2-base", file))
    assert not mark.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        (
            "sd2-inpainting",
            "sd2-base",
            r"text-to-image checkpoint \(4 input channels.*conditioning=inpainting.*9 input",
        ),
        (
            "sd2-base",
            "sd2-inpainting",
            r"inpainting checkpoint \(9 input channels.*conditioning=text.*needs 4",
        ),
        ("sd2-base", "sd2-x4", r"upscaling checkpoint \(7 input"),
        ("sd2-base", "sd1-5", r"text encoder is CLIP's \(v1\), but .*checkpoint.text=open_clip"),
        ("sd1-5", "sd2-base", r"text encoder is OpenCLIP's \(SD2\), but .*checkpoint.text=clip"),
    ],
)
def test_another_kind_of_file_is_refused_and_named(folder: Path, name: str, file: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(definition(folder, name, folder / f"{file}.safetensors"))
    assert "\n" not in str(caught.value)


def changed(state: State, **changes: torch.Tensor | None) -> State:
    """Return a state with tensors replaced, added or (None) removed."""
    return {name: tensor for name, tensor in (state | changes).items() if tensor is not None}


UNET = "model.diffusion_model."
DAMAGE: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "missing": (
        {f"{UNET}out.2.bias": None},
        "1 tensors are missing .first: model.diffusion_model.out.2.bias",
    ),
    "too many": (
        {f"{UNET}input_blocks.99.0.weight": torch.zeros(1)},
        "1 tensors find no place .first: model.diffusion_model.input_blocks.99",
    ),
    "shape": (
        {f"{UNET}out.2.bias": torch.zeros(5)},
        "model.diffusion_model.out.2.bias has shape 5, expected 4; is checkpoint.architecture",
    ),
    "no autoencoder": (
        {"first_stage_model.quant_conv.bias": None},
        "first: first_stage_model.quant_conv.bias",
    ),
    "layout": (
        {f"{UNET}input_blocks.0.0.weight": None},
        "no checkpoint in the published layout .*of a folder in diffusers layout give the folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_does_not_fit_is_refused_by_tensor(folder: Path, tmp_path: Path, damage: str) -> None:
    changes, message = DAMAGE[damage]
    file = tmp_path / "mine.safetensors"
    save_file(changed(load_file(folder / "sd2-base.safetensors"), **changes), file)
    with pytest.raises(InputError, match=message) as caught:
        load(definition(folder, "sd2-base", file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kept", [7, 4096, -100])
def test_a_cut_file_is_refused(folder: Path, tmp_path: Path, suffix: str, kept: int) -> None:
    file = tmp_path / f"cut{suffix}"
    write(load_file(folder / "sd2-base.safetensors"), file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"cannot be read as weights .*is it whole") as caught:
        load(definition(folder, "sd2-base", file))
    assert "\n" not in str(caught.value)


def test_a_deeper_text_tower_is_refused(folder: Path, tmp_path: Path) -> None:
    """With a layer too many, the layer that is taken would not be the last but one."""
    state = load_file(folder / "sd2-base.safetensors")
    block = "cond_stage_model.model.transformer.resblocks."
    more = {
        name.replace(f"{block}0", f"{block}9"): state[name].clone() for name in state if f"{block}0" in name
    }
    save_file(state | more, tmp_path / "deep.safetensors")
    with pytest.raises(InputError, match="text encoder has 4 layers, expected 3"):
        load(definition(folder, "sd2-base", tmp_path / "deep.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "comes from a single file; start from its published relative"),
        ({"architecture": "sd3"}, "checkpoint.architecture=sd3: allowed: sd1-5, sd2-base"),
        ({"lora": "nowhere.safetensors"}, "checkpoint.lora=nowhere.safetensors: no such file"),
        ({"components": {"vae": "nowhere"}}, "checkpoint.components.vae=nowhere: no such folder"),
    ],
)
def test_what_is_missing_is_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(dataclasses.replace(definition(folder, "sd2-base"), **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a git-lfs pointer"),
        (bytes(range(256)) * 20, "cannot be read as weights"),
        (b"PK\x03\x04" + bytes(200), "cannot be read as weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_what_a_download_left_instead_of_weights_is_named(
    folder: Path, tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    file = tmp_path / f"odd{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(definition(folder, "sd2-base", file))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch would recommend to switch the protection off


def damaged(
    folder: Path, tmp_path: Path, value: torch.Tensor, suffix: str = ".safetensors"
) -> CheckpointConfig:
    """Return a definition whose file has another tensor in the place of one."""
    file = tmp_path / f"damaged{suffix}"
    write(load_file(folder / "sd2-base.safetensors") | {f"{UNET}out.2.bias": value}, file)
    return definition(folder, "sd2-base", file)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((4,), float("nan")), "conv_out.bias of its unet holds NaN or infinity"),
        (torch.full((4,), float("inf")), "conv_out.bias of its unet holds NaN or infinity"),
        (
            torch.ones(4, dtype=torch.complex64),
            r"out.2.bias holds no floating point numbers .torch.complex64",
        ),
        (torch.ones(4, dtype=torch.int64), r"out.2.bias holds no floating point numbers .torch.int64"),
        (torch.tensor(1.0), r"out.2.bias has shape , expected 4"),
    ],
)
def test_a_tensor_that_holds_no_weights_is_refused(
    folder: Path, tmp_path: Path, value: torch.Tensor, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(damaged(folder, tmp_path, value))


def test_a_tensor_without_storage_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no floating point numbers|cannot be read as weights"):
        load(damaged(folder, tmp_path, torch.ones(4, device="meta"), ".ckpt"))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("unet", {"layer_per_block": 2}, r"unet.json has a key 'layer_per_block' that is unknown"),
        ("unet", {"block_out_channels": "abc"}, "unet.json describes no UNet2DConditionModel"),
        ("unet", {"down_block_types": ["NoBlock"] * 4}, "unet.json describes no UNet2DConditionModel"),
        ("text_encoder", {"hiden_size": 64}, "text_encoder.json has a key 'hiden_size' that is unknown"),
        ("text_encoder", {"num_attention_heads": 7}, "text_encoder.json describes no CLIPTextModel"),
        ("text_encoder", {"hidden_act": "zzz"}, "text_encoder.json describes no CLIPTextModel"),
        ("vae", [], "vae.json: is no config .a JSON object is needed"),
        ("vae", 1, "vae.json: is no config .a JSON object is needed"),
    ],
)
def test_an_architecture_that_is_none_is_refused(
    folder: Path, tmp_path: Path, part: str, change: Any, message: str
) -> None:
    shutil.copytree(folder / "sd2-base", tmp_path / "own")
    file = tmp_path / "own" / f"{part}.json"
    config = json.loads(file.read_text()) | change if isinstance(change, dict) else change
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=message) as caught:
        load(definition(folder, "sd2-base", None, architecture=str(tmp_path / "own")))
    assert "\n" not in str(caught.value)


def saved(folder: Path, root: Path) -> CheckpointConfig:
    """Write a checkpoint in diffusers layout, and return a definition that reads it."""
    wanted = definition(folder, "sd2-base")
    parts = load_networks(wanted, resolve(wanted), torch.float32)
    networks = {"unet": parts.unet, "vae": parts.vae, "text_encoder": parts.text_encoder.model}
    for name, network in networks.items():
        network.to(memory_format=torch.contiguous_format).save_pretrained(root / name)
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "vocab.json").write_text("{}")
    return dataclasses.replace(wanted, source=str(root), file=None, architecture=None)


PARTS = {
    "unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_with_a_tensor_too_few_or_too_many_is_refused(
    folder: Path, tmp_path: Path, part: str
) -> None:
    """The libraries would fill a gap with random numbers, and say so where nobody looks."""
    wanted = saved(folder, tmp_path)
    load(wanted)
    file = tmp_path / part / PARTS[part]
    state = load_file(file)
    first = sorted(state)[0]
    save_file({name: tensor for name, tensor in state.items() if name != first}, file, {"format": "pt"})
    with pytest.raises(InputError, match=f"1 tensors are missing .first: {re.escape(first)}"):
        load(wanted)
    save_file(state | {"odd": torch.ones(1)}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensors find no place .first: odd"):
        load(wanted)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["cut", "gone", "config", "no config"])
def test_a_damaged_folder_is_one_line(folder: Path, tmp_path: Path, part: str, damage: str) -> None:
    wanted, root = saved(folder, tmp_path), tmp_path / part
    if damage == "cut":
        (root / PARTS[part]).write_bytes((root / PARTS[part]).read_bytes()[:-50])
    elif damage == "gone":
        (root / PARTS[part]).unlink()
    elif damage == "config":
        (root / "config.json").write_text("[]")
    else:
        (root / "config.json").unlink()
    with pytest.raises(InputError, match=part) as caught:
        load(wanted)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_must_be_one_and_have_the_encoders_vocabulary(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    with gzip.open(tmp_path / "small" / "bpe_own.txt.gz", "wt") as stream:
        stream.write("#version\na b\n")
    for name, message in (
        ("empty", "is no tokenizer"),
        ("small", r"a tokenizer of \d+ tokens, but .* has 49408"),
    ):
        with pytest.raises(InputError, match=message):
            load(definition(folder, "sd2-base", None, components={"tokenizer": str(tmp_path / name)}))
