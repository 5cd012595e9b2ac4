from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sd2eval import price
from sd2eval.config import from_overrides

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
        return price.estimate(config, definitions, torch.device("cpu"), "float32").prices[0].flops

    whole = flops("prompts.n=64")
    assert flops("prompts.n=128") == pytest.approx(2 * whole)
    assert 0.49 < flops("prompts.n=64", "sampler.steps=25") / whole < 0.54


def test_dry_run_prints_the_price_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config, definitions = from_overrides("experiment=smoke")
    price.show(config, definitions)
    printed = capsys.readouterr().out
    for word in ("cells", "images", "UNet calls", "TFLOP", "time", "disk", "kWh", "kg on the grid of USA"):
        assert word in printed
    assert list(tmp_path.iterdir()) == []
