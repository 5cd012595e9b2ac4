"""The mini family's base model written as a single published file gives the images that its folders give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sd2eval
from sd2eval import checkpoints
from sd2eval.checkpoints import layout
from sd2eval.checkpoints.text import penultimate_config
from sd2eval.config import from_overrides
from sd2eval.errors import InputError
from sd2eval.store import RunFolder
from tests import hub_server

WEIGHTS = Path(sd2eval.__path__[0], "mini", "weights")
SMALL = ("experiment=smoke", "prompts.n=5", "progress=false", "device=cpu", "images=none")


def exported() -> dict[str, torch.Tensor]:
    """Return the tensors of 512-base under the published names."""
    (definition,) = from_overrides("checkpoints=[512-base]")[1]
    loaded = checkpoints.load_networks(definition, checkpoints.resolve(definition), torch.float32)
    state: dict[str, torch.Tensor] = {}
    for network, names_of in ((loaded.unet, layout.unet_names), (loaded.vae, layout.vae_names)):
        tensors = network.state_dict()
        config = network.config
        names = names_of(tensors, len(config.block_out_channels), config.layers_per_block)
        state |= {piece.name: tensors[ours].contiguous() for ours, piece in names.items()}
    text = load_file(WEIGHTS / "text_encoder" / "open_clip_model.safetensors")
    return state | {f"{layout.OPEN_CLIP_TEXT}{name}": tensor for name, tensor in text.items()}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file `mini.safetensors`, and a folder `architecture` that describes it."""
    root = tmp_path_factory.mktemp("single")
    save_file(exported(), root / "mini.safetensors")
    (root / "architecture").mkdir()
    configs: dict[str, Any] = {
        "unet": json.loads((WEIGHTS / "512-base/unet/config.json").read_text()),
        "vae": json.loads((WEIGHTS / "vae/config.json").read_text()),
        "text_encoder": penultimate_config(
            json.loads((WEIGHTS / "text_encoder/config.json").read_text())
        ).to_dict(),
    }
    for name, config in configs.items():
        (root / "architecture" / f"{name}.json").write_text(json.dumps(config))
    return root


def sweep(out: Path, *overrides: str) -> set[tuple[int, float, str]]:
    """Run a small sweep and return caption id, scale and digest of its images."""
    run = sd2eval.run_sweep(*SMALL, f"out={out}", *overrides)
    store = RunFolder(run.path)
    (name,) = set(run.results["checkpoint"])
    records = [image for block in store.blocks(name) for image in store.read_manifest(name, block)["images"]]
    return {(image["caption_id"], image["guidance_scale"], image["sha256"]) for image in records}


def of_file(root: Path, name: str = "mini.safetensors") -> tuple[str, ...]:
    return (
        "checkpoint=512-base",
        f"checkpoint.source={root / name}",
        "checkpoint.name=mine",
        f"checkpoint.architecture={root / 'architecture'}",
        "checkpoint.components={tokenizer: package:mini/weights/tokenizer}",
        "~checkpoint.components.vae",
        "~checkpoint.components.text_encoder",
    )


def test_a_single_file_gives_the_images_of_its_folders(single: Path, tmp_path: Path) -> None:
    folders = sweep(tmp_path / "folders", "checkpoints=[512-base]")
    assert sweep(tmp_path / "file", *of_file(single)) == folders


def test_a_lora_gives_other_images_and_scale_zero_the_same(single: Path, tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    width = exported()[f"{layout.UNET}middle_block.1.transformer_blocks.0.attn1.to_v.weight"].shape[0]
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(shape, generator=generator) for shape in ((2, width), (width, 2)))
    lora = tmp_path / "lora.safetensors"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, lora)
    adapted = (*of_file(single), f"checkpoint.lora={lora}")
    plain = sweep(tmp_path / "plain", *of_file(single))
    assert sweep(tmp_path / "adapted", *adapted).isdisjoint(plain)
    assert sweep(tmp_path / "zero", *adapted, "checkpoint.lora_scale=0") == plain


def test_an_epsilon_file_under_a_v_definition_is_refused_before_anything_is_sampled(
    single: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="'mine' predicts epsilon, not v: given pure noise"):
        sweep(tmp_path / "run", *of_file(single), "checkpoint.prediction_type=v_prediction")
    assert RunFolder(tmp_path / "run").blocks("mine") == []


@pytest.fixture
def hub_with_mini(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """A loopback hub whose repository holds the file, and the same model in diffusers layout."""
    with hub_server.serve() as server:
        server.put("me/mini", "mini.safetensors", (single / "mini.safetensors").read_bytes())
        parts = {
            "unet": "512-base/unet",
            "vae": "vae",
            "text_encoder": "text_encoder",
            "tokenizer": "tokenizer",
        }
        for part, folder in parts.items():
            for file in (WEIGHTS / folder).iterdir():
                server.put("me/mini", f"{part}/{file.name}", file.read_bytes())
        hub_server.connect(server, tmp_path / "hub", monkeypatch)
        yield server


def test_a_sweep_fetches_a_single_file_or_folders_from_the_hub_once(
    hub_with_mini: hub_server.Hub, single: Path, tmp_path: Path
) -> None:
    local = sweep(tmp_path / "local", "checkpoints=[512-base]")
    single_file = (*of_file(single), "checkpoint.source=me/mini", "checkpoint.file=mini.safetensors")
    assert sweep(tmp_path / "file", *single_file) == local
    fetched = len(hub_with_mini.bodies())
    assert sweep(tmp_path / "again", *single_file) == local
    assert len(hub_with_mini.bodies()) == fetched
    shared = [f"~checkpoint.components.{part}" for part in ("vae", "text_encoder", "tokenizer")]
    folders = ("checkpoint=512-base", "checkpoint.source=me/mini", "checkpoint.name=mine", *shared)
    assert sweep(tmp_path / "folders", *folders) == local


def test_a_sweep_whose_file_is_not_in_the_repository_says_so_and_begins_nothing(
    hub_with_mini: hub_server.Hub, single: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"me/mini.*other\.safetensors") as caught:
        sweep(
            tmp_path / "run",
            *of_file(single),
            "checkpoint.source=me/mini",
            "checkpoint.file=other.safetensors",
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
