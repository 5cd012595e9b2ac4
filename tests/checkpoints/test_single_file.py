"""Single files in the published layout that load."""

from __future__ import annotations

import dataclasses
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from benchmarks.published_layout import write
from sd2eval.checkpoints import sources
from sd2eval.checkpoints.architecture import bundled, from_original, load_architecture
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.fixture import SHIPPED
from tests.narrow import definition, load, make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("published"))


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
    from sd2eval.transfer.digests import file_digest

    wanted = dataclasses.replace(definition(folder, "sd2-base"), architecture="sd2-base")
    assert sources.digest(sources.resolve(wanted)) == file_digest(folder / "sd2-base.safetensors")


def test_a_file_in_a_folder_is_found_by_its_name(folder: Path) -> None:
    wanted = dataclasses.replace(definition(folder, "sd2-base", folder), file="sd2-x4.safetensors")
    assert sources.resolve(wanted).file == folder / "sd2-x4.safetensors"


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


def test_the_content_tells_the_format_not_the_name(folder: Path, tmp_path: Path) -> None:
    named = tmp_path / "named.CKPT"
    named.write_bytes((folder / "sd2-base.safetensors").read_bytes())
    assert load(definition(folder, "sd2-base", named)).unet is not None
