"""Files that `merge_lora` refuses: one line each, and no weight touched."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sd2eval.checkpoints.lora import merge_lora
from sd2eval.errors import InputError
from tests.lora_files import Low, attention_only, draw, kohya, peft, snapshot, text_model, unet, write

LAST = "encoder.layers.23.mlp.fc1"


@pytest.fixture
def models() -> dict[str, Any]:
    return {"unet": unet(), "text": text_model()}


def refusal(path: Path, models: dict[str, Any]) -> str:
    """Return the line of a refused file, which must leave the weights alone."""
    before = snapshot(*models.values())
    with pytest.raises(InputError) as caught:
        merge_lora(path, *models.values())
    assert all(map(torch.equal, before, snapshot(*models.values())))
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def test_no_other_layer_may_be_missing(tmp_path: Path, models: dict[str, Any]) -> None:
    def at(layer: int) -> Path:
        low = Low("text", f"encoder.layers.{layer}.mlp.fc1", torch.zeros(1, 24), torch.zeros(40, 1), 1.0)
        fine = next(draw("unet", models["unet"]))
        return write(tmp_path / f"{layer}.safetensors", kohya, [fine, low])

    line = "3 tensors find no place in this checkpoint (first: lora_te_text_model_encoder_layers_{}_mlp_fc1."
    assert refusal(at(24), models).startswith(line.format(24))
    assert refusal(at(23), models | {"text": text_model(12)}).startswith(line.format(23))
    assert refusal(at(12), models | {"text": text_model(12)}).startswith(line.format(12))


def test_a_file_that_would_change_nothing_says_so(tmp_path: Path, models: dict[str, Any]) -> None:
    low = Low("text", LAST, torch.zeros(1, 24), torch.zeros(40, 1), 1.0)
    line = refusal(write(tmp_path / "lora.safetensors", kohya, [low]), models)
    assert line == "adapts nothing but the text encoder's last layer, which SD2 does not use"
    save_file({}, tmp_path / "empty.safetensors")
    assert refusal(tmp_path / "empty.safetensors", models) == "holds no tensors"


@pytest.mark.parametrize("part", ["unet", "text"])
@pytest.mark.parametrize(
    ("made", "has", "line"),
    [
        (768, 1024, "made for text width 768 (Stable Diffusion 1), this checkpoint has 1024"),
        (1024, 768, "made for text width 1024 (Stable Diffusion 2), this checkpoint has 768"),
        (32, 24, "made for text width 32, this checkpoint has 24"),
    ],
)
def test_a_lora_for_another_text_encoder_says_so(
    tmp_path: Path, part: str, made: int, has: int, line: str
) -> None:
    layers = {768: 12, 1024: 23, 32: 2, 24: 2}  # what only the longer one has must not hide the reason
    source = unet(text_width=made) if part == "unet" else text_model(layers[made], made)
    path = write(tmp_path / "lora.safetensors", kohya, list(draw(part, source, attention_only)))
    assert refusal(path, {"unet": unet(text_width=has), "text": text_model(layers[has], has)}) == line


def tampered(path: Path, models: dict[str, Any], change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Write an update of every UNet layer after a change to its tensors."""
    write(path, kohya, list(draw("unet", models["unet"])))
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


CONV = "lora_unet_conv_in"
ONE, ZERO = torch.ones(1), torch.zeros(1)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"x.hada_w1_a": ONE}, "not a plain LoRA but LoHa (x.hada_w1_a); only plain LoRA can be added"),
        ({"x.lokr_w1": ONE}, "not a plain LoRA but LoKr (x.lokr_w1);"),
        ({"x.dora_scale": ONE}, "not a plain LoRA but DoRA (x.dora_scale);"),
        ({"x.lora_magnitude_vector.weight": ONE}, "not a plain LoRA but DoRA"),
        ({"x.oft_blocks": ONE}, "not a plain LoRA but OFT (x.oft_blocks);"),
        ({f"{CONV}.lora_mid.weight": ONE}, "not a plain LoRA but LoCon in Tucker form"),
        ({f"{CONV}.diff_b": ONE}, "not a plain LoRA but a difference of whole weights"),
        ({"lora_te1_x.alpha": ONE}, "made for Stable Diffusion XL (lora_te1_x.alpha)"),
        ({"lora_te2_x.alpha": ONE}, "made for Stable Diffusion XL"),
        ({"text_encoder_2.x.lora_A.weight": ONE}, "made for Stable Diffusion XL"),
        (
            {"lora_unet_input_blocks_1_1_proj_in.alpha": ONE, "model.diffusion_model.out.2.bias": ZERO},
            "2 tensors find no place in this checkpoint (first: lora_unet_input_blocks_1_1_proj_in.alpha)",
        ),
        ({"lora_te_text_projection.alpha": ONE}, "1 tensors find no place"),
        ({"unet.conv_in.lora_B.bias": ONE}, "1 tensors find no place"),
        ({"unet.conv_in.lora_A.weight": ONE}, "two tensors for the same weight"),
        ({f"{CONV}.alpha": torch.ones(2)}, "1 modules have another shape here (first: lora_unet_conv_in."),
        ({f"{CONV}.lora_down.weight": torch.ones(1, 4)}, "1 modules have another shape here"),
        ({f"{CONV}.lora_down.weight": torch.ones(1, 4, 1, 1)}, "1 modules have another shape here"),
        ({f"{CONV}.lora_down.weight": torch.ones(2, 4, 3, 3)}, "1 modules have another shape here"),
        ({f"{CONV}.lora_up.weight": torch.ones(32, 1, 3, 3)}, "1 modules have another shape here"),
        ({f"{CONV}.lora_up.weight": torch.ones(1)}, "1 modules have another shape here"),
        (
            {f"{CONV}.lora_down.weight": torch.ones(0, 4, 3, 3), f"{CONV}.lora_up.weight": torch.ones(32, 0)},
            "1 modules have another shape here",
        ),
        ({f"{CONV}.alpha": torch.tensor(float("nan"))}, "lora_unet_conv_in.alpha or a tensor beside it"),
        ({f"{CONV}.lora_up.weight": torch.full((32, 1), float("inf"))}, "lora_unet_conv_in."),
    ],
)
def test_what_is_no_plain_lora_for_this_checkpoint_is_refused(
    tmp_path: Path, models: dict[str, Any], more: dict[str, torch.Tensor], line: str
) -> None:
    path = tampered(tmp_path / "lora.safetensors", models, lambda tensors: tensors.update(more))
    assert refusal(path, models).startswith(line)


@pytest.mark.parametrize("role", ["up", "down"])
def test_half_a_pair_is_refused(tmp_path: Path, models: dict[str, Any], role: str) -> None:
    name = f"{CONV}.lora_{role}.weight"
    path = tampered(tmp_path / "lora.safetensors", models, lambda tensors: tensors.pop(name))
    assert refusal(path, models) == f"{CONV}.alpha has no {role} tensor beside it"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"unet.use_rslora": True}, "not a plain LoRA (unet.use_rslora is set)"),
        ({"text_encoder.use_dora": True}, "not a plain LoRA (text_encoder.use_dora is set)"),
        ({"unet.lora_alpha": "much"}, "the alpha in its lora_adapter_metadata cannot be read"),
        ({"unet.alpha_pattern": {"(": 1}}, "the alpha in its lora_adapter_metadata cannot be read"),
        ([1], "its lora_adapter_metadata is no JSON object"),
        ({"unet.alpha_pattern": ["a"]}, "the alpha in its lora_adapter_metadata cannot be read"),
    ],
)
def test_settings_of_another_method_or_that_make_no_sense_are_refused(
    tmp_path: Path, models: dict[str, Any], settings: Any, line: str
) -> None:
    updates = list(draw("unet", models["unet"]))
    path = write(tmp_path / "lora.safetensors", peft, updates, alphas=False, settings=settings)
    assert refusal(path, models).startswith(line)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_a_pickle_is_refused_unread(tmp_path: Path, models: dict[str, Any], suffix: str) -> None:
    path = tmp_path / f"lora{suffix}"
    path.write_bytes(b"never looked at")
    assert refusal(path, models).startswith("a pickle can run code when it is read")


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, models: dict[str, Any]) -> None:
    path = tmp_path / "lora.safetensors"
    assert refusal(path, models).startswith("cannot be read as a LoRA in safetensors")  # not there
    path.write_bytes(pickle.dumps({"a": 1}))
    assert refusal(path, models).startswith("cannot be read as a LoRA in safetensors")
    tampered(path, models, lambda tensors: None)
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path, models).startswith("cannot be read as a LoRA in safetensors")
