from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sd2eval import price, price_table
from sd2eval.config import from_overrides
from sd2eval.errors import InputError

# (checkpoint, million parameters of the UNet, GFLOP of one UNet row, of one decode): counted independently by
# hooks on convolutions and matrix products plus the attention formula, for the published architectures.
PUBLISHED = [
    ("512-base-ema", 866, 804.3, 2515),
    ("768-v-ema", 866, 2149.1, 5754),
    ("512-depth-ema", 866, 804.3, 2515),
    ("512-inpainting-ema", 866, 804.4, 2515),
    ("x4-upscaling-ema", 473, 1131.4, 3095),
]


@pytest.mark.parametrize(("name", "parameters", "row", "decode"), PUBLISHED)
def test_the_bundled_architectures_are_the_published_ones(
    name: str, parameters: int, row: float, decode: float
) -> None:
    _, (definition,) = from_overrides("protocol=model_card", f"checkpoints=[{name}]")
    networks = price.architecture(definition)
    assert sum(p.numel() for p in networks.unet.parameters()) / 1e6 == pytest.approx(parameters, abs=0.6)
    assert networks.unet_flops() / 1e9 == pytest.approx(row, abs=0.06)
    assert networks.image_flops() / 1e9 == pytest.approx(decode, abs=0.6)


def test_a_known_layer_is_counted_with_two_operations_per_multiply_add() -> None:
    with torch.device("meta"):
        layer = nn.Linear(30, 50, bias=False)
    assert price.count(lambda: layer(torch.empty(7, 30, device="meta"))) == 2 * 7 * 30 * 50


def test_the_price_grows_with_prompts_and_steps_as_the_sampler_does() -> None:
    def flops(*overrides: str) -> float:
        config, definitions = from_overrides("checkpoints=[512-base]", *overrides)
        return (
            price.estimate(config, definitions, config.prompts.n, torch.device("cpu"), "float32")
            .prices[0]
            .flops
        )

    whole = flops("prompts.n=64")
    assert flops("prompts.n=128") == pytest.approx(2 * whole)
    assert 0.49 < flops("prompts.n=64", "sampler.steps=25") / whole < 0.54


def test_dry_run_prints_the_price_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config, definitions = from_overrides("experiment=smoke")
    price_table.show(config, definitions)
    printed = capsys.readouterr().out
    for word in (
        "cells",
        "images",
        "UNet calls",
        "TFLOP",
        "time",
        "disk",
        "Wh at an assumed",
        "g on the grid of USA",
    ):
        assert word in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "part"),
    [
        (
            "checkpoint.source=/nope.safetensors",
            "checkpoint.source=/nope.safetensors: no such file or folder",
        ),
        ("checkpoint.source=~/no such folder", "no such folder: no such file or folder"),
        ("checkpoint.source=nope.ckpt", "checkpoint.source=nope.ckpt: no such file"),
        ("checkpoint.source=notes.txt", "ends in .safetensors or .ckpt"),
        ("checkpoint.lora=nope", "checkpoint.lora=nope: no such file"),
        ("checkpoint.components.vae=nope", "checkpoint.components.vae=nope: no such folder"),
        ("data.root=nowhere", "data.root=nowhere: no such folder"),
        ("prompts.n=1000000", "prompts.n=1000000: must be from 1 to"),
        ("out=.", "holds notes.txt but no run"),
    ],
)
def test_what_cannot_run_has_no_price(
    override: str,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    config, definitions = from_overrides("experiment=smoke", "checkpoint=512-base", override)
    with pytest.raises(InputError) as error:
        price_table.show(config, definitions)
    assert part in str(error.value)
    assert capsys.readouterr().out == ""


def test_a_hub_id_is_priced_without_asking_the_hub() -> None:
    config, definitions = from_overrides(
        "experiment=smoke", "checkpoint=512-base", "checkpoint.source=somebody/something"
    )
    assert price_table.require(config, definitions) == (config.prompts.n, [])


def test_the_price_without_a_data_set_says_that_the_sweep_needs_one() -> None:
    config, definitions = from_overrides("experiment=smoke", "data=coco")
    _, (line,) = price_table.require(config, definitions)
    assert "data.root=DIR" in line


def test_a_small_price_is_not_printed_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    config, definitions = from_overrides("experiment=smoke", "prompts.n=5", "sampler.steps=1")
    price_table.show(config, definitions)
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("energy", "CO2")):
            assert float(line.split()[1]) > 0


@pytest.mark.parametrize("columns", ["40", "60"])
def test_names_and_numbers_are_whole_at_any_width(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    name = "a-name-longer-than-the-others-that-is-still-a-name"
    config, definitions = from_overrides("experiment=smoke", "checkpoint=512-base", f"checkpoint.name={name}")
    price_table.show(config, definitions)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if name in line]
    images = config.prompts.n * len(config.guidance_scales)
    assert row.split()[1:3] == [str(len(config.guidance_scales)), str(images)]
    assert "…" not in row
