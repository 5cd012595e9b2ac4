"""Single files in the published layout: what loads, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from benchmarks.published_layout import State, published_state, write
from sd2eval import checkpoints
from sd2eval.checkpoints import sources
from sd2eval.checkpoints.architecture import Architecture, bundled, from_original, load_architecture
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import CheckpointConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.fixture import SHIPPED

CPU = torch.device("cpu")
NARROW_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}


RELATIVES = {
    "sd2-base": "512-base-ema",
    "sd2-inpainting": "512-inpainting-ema",
    "sd2-x4": "x4-upscaling-ema",
    "sd1-5": "v1-5-pruned-emaonly",
}


def narrow(name: str) -> Architecture:
    """Return a bundled architecture with the same blocks and input channels, but few channels."""
    real = load_architecture(name)
    unet = real.unet | {"block_out_channels": [64, 64, 128, 128], "cross_attention_dim": 64}
    unet |= {"layers_per_block": 1, "attention_head_dim": 4}
    vae = real.vae | {"block_out_channels": [32] * len(real.vae["block_out_channels"]), "layers_per_block": 1}
    return Architecture(unet, vae, real.text_encoder | NARROW_TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Architectures as folders of configs, and one file of random weights for each."""
    root = tmp_path_factory.mktemp("published")
    for name in ("sd2-base", "sd2-inpainting", "sd2-x4", "sd1-5"):
        architecture = narrow(name)
        (root / name).mkdir()
        for part in ("unet", "vae", "text_encoder"):
            (root / name / f"{part}.json").write_text(json.dumps(getattr(architecture, part)))
        write(published_state(architecture), root / f"{name}.safetensors")
    return root


def definition(folder: Path, name: str, file: Path | None = None, **changes: Any) -> CheckpointConfig:
    """Return a definition of the user's own that reads a file as a narrow architecture."""
    overrides = ("experiment=model_card", "data.root=.", f"checkpoint={RELATIVES[name]}")
    real = from_overrides(*overrides)[1][0]
    own = {
        "name": "mine",
        "architecture": str(folder / name),
        "source": str(file or folder / f"{name}.safetensors"),
    }
    return dataclasses.replace(real, **(own | changes))  # type: ignore[arg-type]


def load(wanted: CheckpointConfig) -> checkpoints.Checkpoint:
    return checkpoints.load(wanted, CPU, torch.float32)


@pytest.mark.parametrize("name", ["sd2-base", "sd2-inpainting", "sd2-x4", "sd1-5"])
def test_the_weights_are_those_that_diffusers_converts_to(folder: Path, name: str) -> None:
    ours, file = load(definition(folder, name)), str(folder / f"{name}.safetensors")
    for cls, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        theirs = cls.from_single_file(file, config=str(folder / name / f"{part}.json"), local_files_only=True)
        state = getattr(ours, part).state_dict()
        for key, tensor in theirs.state_dict().items():
            assert torch.equal(state[key], tensor), key


@pytest.mark.parametrize("name", bundled())
def test_every_tensor_of_the_published_architectures_has_a_place_of_its_own(name: str) -> None:
    from benchmarks import published_layout

    places: list[str] = []
    for shapes, names in published_layout._parts(load_architecture(name)):
        assert names.keys() == shapes.keys()
        places += [f"{piece.name}/{piece.third}" for piece in names.values()]
    assert len(set(places)) == len(places)


def test_a_ckpt_loads_as_its_safetensors(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.ckpt"
    write(load_file(folder / "sd2-base.safetensors"), file)
    one, other = load(definition(folder, "sd2-base")), load(definition(folder, "sd2-base", file))
    for part in ("unet", "vae"):
        states = [getattr(checkpoint, part).state_dict() for checkpoint in (one, other)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_half_precision_files_are_widened_exactly(folder: Path, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(folder / "sd2-base.safetensors").items()}
    write(halves, tmp_path / "half.safetensors")
    wide = load(definition(folder, "sd2-base", tmp_path / "half.safetensors")).vae.state_dict()
    key = "first_stage_model.encoder.conv_in.weight"
    assert torch.equal(wide["encoder.conv_in.weight"], halves[key].float())


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


def test_names_that_a_training_left_in_a_pickle_are_no_code(folder: Path, tmp_path: Path) -> None:
    """v1 files name pytorch_lightning's callbacks; a file is written that does, without that package."""
    file, named = tmp_path / "plain.ckpt", tmp_path / "named.ckpt"
    state = load_file(folder / "sd2-base.safetensors")
    torch.save({"state_dict": state, "callbacks": {pickle.PickleBuffer: 1}}, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(named, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"cpickle\nPickleBuffer\n" in content
                content = content.replace(
                    b"cpickle\nPickleBuffer\n",
                    b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n",
                )
            new.writestr(item, content)
    weights = WeightsFile(named)
    assert weights.shapes.keys() == state.keys()
    ((_, tensor),) = weights.read(["first_stage_model.quant_conv.bias"])
    assert torch.equal(tensor, state["first_stage_model.quant_conv.bias"])


def test_a_file_is_read_in_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_file(folder / "sd2-base.safetensors")
    monkeypatch.setattr("sd2eval.checkpoints.weights_file.GROUP_BYTES", 4096)
    read = {name: tensor.clone() for name, tensor in WeightsFile(folder / "sd2-base.safetensors").read(whole)}
    assert list(read) == list(whole)
    assert all(torch.equal(read[name], whole[name]) for name in whole)


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
@pytest.mark.parametrize("kept", [0, 7, 4096, -100])
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


def test_the_unused_last_layer_may_be_missing(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "sd2-base.safetensors")
    less = {name: tensor for name, tensor in state.items() if "resblocks.2." not in name}
    assert len(less) == len(state) - 12
    save_file(less, tmp_path / "less.safetensors")
    ids = torch.randint(0, 49408, (1, 77))
    one, other = (
        load(definition(folder, "sd2-base", file)).text_encoder.model(input_ids=ids)[0]
        for file in (None, tmp_path / "less.safetensors")
    )
    assert torch.equal(one, other)


def test_a_component_can_come_from_a_folder(folder: Path, tmp_path: Path) -> None:
    wanted = definition(folder, "sd2-base")
    vae = load(wanted).vae
    vae.post_quant_conv.bias.fill_(7.0)
    vae.save_pretrained(tmp_path / "vae")
    other = load(dataclasses.replace(wanted, components={"vae": str(tmp_path / "vae")}))
    assert other.vae.post_quant_conv.bias.unique().tolist() == [7.0]
    found = [sources.digest(sources.resolve(one)) for one in (wanted, other.definition)]
    assert found[0] != found[1]


def test_the_digest_of_a_single_file_is_its_own(folder: Path) -> None:
    from sd2eval.digests import file_digest

    wanted = dataclasses.replace(definition(folder, "sd2-base"), architecture="sd2-base")
    assert sources.digest(sources.resolve(wanted)) == file_digest(folder / "sd2-base.safetensors")


def test_a_file_in_a_folder_is_found_by_its_name(folder: Path) -> None:
    wanted = dataclasses.replace(definition(folder, "sd2-base", folder), file="sd2-x4.safetensors")
    assert sources.resolve(wanted).file == folder / "sd2-x4.safetensors"


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


def test_a_lora_changes_the_weights_and_the_digest(folder: Path, tmp_path: Path) -> None:
    wanted = definition(folder, "sd2-base")
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
    parts = {f"{name}.lora_down.weight": torch.ones(1, 128), f"{name}.lora_up.weight": torch.ones(128, 1)}
    save_file(parts, tmp_path / "lora.safetensors")
    adapted = dataclasses.replace(wanted, lora=str(tmp_path / "lora.safetensors"), lora_scale=0.5)
    before, after = (
        load(one).unet.mid_block.attentions[0].transformer_blocks[0].attn2 for one in (wanted, adapted)
    )
    torch.testing.assert_close(after.to_q.weight, before.to_q.weight + 0.5)
    assert sources.digest(sources.resolve(adapted)) != sources.digest(sources.resolve(wanted))


def test_a_yaml_of_the_original_code_describes_the_same_networks() -> None:
    found = from_original(SHIPPED / "x4" / "config.yaml")
    unet = UNet2DConditionModel.from_single_file(
        str(SHIPPED / "x4" / "model.safetensors"), original_config=str(SHIPPED / "x4" / "config.yaml"),
        local_files_only=True,
    ).config  # fmt: skip
    ours = UNet2DConditionModel.from_config(found.unet).config
    ignored = {"sample_size", "_use_default_values", "_class_name", "_diffusers_version"}
    assert {key: ours[key] for key in ours if key not in ignored} == {
        key: unet[key] for key in ours if key not in ignored
    }
