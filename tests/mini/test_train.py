"""The one training command runs from nothing, skips what is finished and resumes what is not."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd2eval.mini import train, training
from sd2eval.mini.files import load_float, save_half
from sd2eval.mini.training import Recipe, Workshop, fit, generator


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights")
    train.main(["--out", str(out), "--quick", "--device", "cpu"])
    return out


def test_quick_training_makes_every_component(trained: Path) -> None:
    assert all((trained / finished).exists() for finished, _ in train.COMPONENTS.values())
    log = json.loads((trained / "TRAINING.json").read_text())["components"]
    assert set(log) == set(train.COMPONENTS) - {"tokenizer"}
    for entry in log.values():
        assert 2 <= entry["steps"] <= 5
        assert entry["wall_seconds"] > 0
        assert {"losses", "seed", "machine", "code"} <= set(entry)


def test_new_input_channels_start_at_zero(trained: Path) -> None:
    from sd2eval.mini.train_unet import PLANS, build, start_from

    base = load_float(trained / "512-base" / "unet" / "diffusion_pytorch_model.safetensors")
    model = build(PLANS["512-inpainting"])
    start_from(model, base)
    assert torch.equal(model.conv_in.weight[:, :4], base["conv_in.weight"])
    assert not model.conv_in.weight[:, 4:].any()


def test_a_second_run_skips_what_is_finished(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    train.main(["--out", str(trained), "--quick", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}: finished, skipped" for name in train.COMPONENTS]
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def line_fit(shop: Workshop, monkeypatch: pytest.MonkeyPatch, stop_at: int | None) -> dict[str, Tensor]:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=generator(1, step))
        return (model(x) - x.sum(1, keepdim=True)).pow(2).mean()

    fit(shop, Recipe(name="line", steps=12, batch=8, rate=0.1, seed=1), model, loss)
    return dict(model.state_dict())


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    whole = line_fit(Workshop(out=tmp_path / "a", device=cpu), monkeypatch, None)
    broken = Workshop(out=tmp_path / "b", device=cpu)
    with pytest.raises(KeyboardInterrupt):
        line_fit(broken, monkeypatch, 7)
    resumed = line_fit(broken, monkeypatch, None)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_diverging_training_stops(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    recipe = Recipe(name="nan", steps=3, batch=1, rate=0.1, seed=1)
    with pytest.raises(FloatingPointError, match="nan"):
        fit(
            Workshop(out=tmp_path, device=torch.device("cpu")),
            recipe,
            model,
            lambda step: model.weight.sum() * torch.nan,
        )


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="large"):
        save_half({"large": torch.tensor([1e6])}, tmp_path / "x.safetensors")
