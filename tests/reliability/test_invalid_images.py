"""Networks that overflow: what is not finite never becomes a pixel, is counted, and enters no score."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import sd2eval
from sd2eval import checkpoints, report, shard
from sd2eval.config import from_overrides
from sd2eval.plan import Cell
from sd2eval.run_tables import Run
from sd2eval.store import RunFolder
from sd2eval.verification.verify import verify_run

WEIGHTS = Path(sd2eval.__path__[0], "mini", "weights")
LAST = "decoder.conv_out.weight"
WORDS = ("experiment=smoke", "checkpoint=512-base", "checkpoint.name=mine", "shard_size=4", "progress=false")


def scaled(part: str, factor: float, to: Path) -> Path:
    """Copy the mini autoencoder with one of its tensors scaled."""
    folder = Path(shutil.copytree(WEIGHTS / "vae", to))
    file = folder / "diffusion_pytorch_model.safetensors"
    state = {name: tensor.float() for name, tensor in load_file(file).items()}
    state[part] *= factor
    save_file(state, file)
    return folder


def sweep(out: Path, vae: Path, *words: str) -> Run:
    return sd2eval.run_sweep(*WORDS, f"checkpoint.components.vae={vae}", f"out={out}", *words)


@pytest.fixture(scope="module")
def overflown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, int]:
    """A run whose decoder overflows float32 for some of its images, and for how many."""
    folder = tmp_path_factory.mktemp("overflow")
    vae = scaled("decoder.conv_out.bias", 0.0, folder / "vae")
    file = vae / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    # Images reach about 1: the weighted sums of some of them are beyond float32's largest number.
    factor = 0.99 * float(np.finfo(np.float32).max)
    save_file({**state, LAST: (state[LAST].double() * factor).float()}, file)
    finite: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        before = checkpoints.Checkpoint.decode

        def watched(self: checkpoints.Checkpoint, latents: torch.Tensor) -> torch.Tensor:
            decoded = before(self, latents)
            finite.append(torch.isfinite(decoded).all(dim=1).all(dim=1).all(dim=1))
            return decoded

        patch.setattr(checkpoints.Checkpoint, "decode", watched)
        run = sweep(folder / "run", vae)
    return run, int((~torch.cat(finite)).sum())


def test_an_image_that_is_not_finite_is_invalid_counted_and_in_no_score(
    overflown: tuple[Run, int], capsys: pytest.CaptureFixture[str]
) -> None:
    run, expected = overflown
    store = RunFolder(run.path)
    images = [row for block in store.blocks("mine") for row in store.read_manifest("mine", block)["images"]]
    invalid = [row for row in images if row["invalid"]]
    assert len(images) == 16
    assert 4 < expected < 13
    assert len(invalid) == expected
    assert {row["invalid"] for row in invalid} == {"non-finite"}
    for row in images:
        png = store.image_folder(Cell("mine", row["guidance_scale"])) / f"{row['caption_id']}.png"
        assert png.exists() == (not row["invalid"])
    counts = pd.Series([row["guidance_scale"] for row in images if not row["invalid"]]).value_counts()
    for scale, rows in run.results.groupby("guidance_scale"):
        assert set(rows["n"]) == {counts[scale]}
        assert np.isfinite(rows["value"]).all()
    report.show(run)
    assert f"{expected} images are invalid and in no score" in " ".join(capsys.readouterr().out.split())
    assert verify_run(run.path).findings == []


def test_a_cell_without_valid_images_has_no_score_and_the_others_have_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = scaled("decoder.conv_in.weight", 1e30, tmp_path / "vae")
    run = sweep(tmp_path / "run", vae)
    assert run.results.empty
    assert {(one["guidance_scale"], one["n"]) for one in run.unscored} == {(1.5, 0), (3.0, 0)}
    report.show(run)
    said = " ".join(capsys.readouterr().out.split())
    assert "mine at scale 3 has 0 valid images, too few for fd_mini" in said
    assert "run the sweep again" not in said
    assert verify_run(run.path).whole
    stamp = (run.path / "results.csv").stat().st_mtime_ns
    sweep(tmp_path / "run", vae)  # it is finished
    assert (run.path / "results.csv").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_decoder_computes_in_float32_whatever_the_networks_before_it_do(
    dtype: str, tmp_path: Path
) -> None:
    """These weights overflow half precision: decoded there, every image would be NaN."""
    vae = scaled("decoder.conv_in.weight", 1e6, tmp_path / "vae")
    _, (definition,) = from_overrides(*WORDS, f"checkpoint.components.vae={vae}")
    loaded = checkpoints.load(definition, torch.device("cpu"), getattr(torch, dtype))
    assert loaded.unet.dtype == getattr(torch, dtype)
    assert {parameter.dtype for parameter in loaded.vae.parameters()} == {torch.float32}
    latents = torch.randn(2, *loaded.latent_shape, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(loaded.decode(latents.to(loaded.unet.dtype))).all()
    half = loaded.vae.to(torch.float16)
    with torch.inference_mode():
        assert not torch.isfinite(half.decode(latents.half()).sample).all()


def test_latents_that_half_precision_left_without_a_value_are_invalid_images(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        before = shard.sample_latents

        def too_large(*arguments: object) -> tuple[torch.Tensor, list[bool]]:
            latents, truncated = before(*arguments)  # type: ignore[arg-type]
            latents = latents.clone()
            latents[0] = (latents[0].half() * 1e6).float()  # infinite, as in a network that overflows
            return latents, truncated

        patch.setattr(shard, "sample_latents", too_large)
        run = sweep(out, WEIGHTS / "vae", "prompts.n=8")
    assert set(run.results["n"]) == {6}  # the first of each of the two shards
    assert np.isfinite(run.results["value"]).all()
    pngs = [np.asarray(Image.open(file)) for file in out.glob("images/*/*.png")]
    assert len(pngs) == 12
    assert all(picture.std() > 0 for picture in pngs)  # none is black


def test_weights_of_mixed_precision_are_used_in_the_one_that_is_asked_for(tmp_path: Path) -> None:
    source = Path(shutil.copytree(WEIGHTS / "512-base", tmp_path / "base"))
    file = source / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file({**state, "conv_in.weight": state["conv_in.weight"].float()}, file)
    _, (definition,) = from_overrides(*WORDS, f"checkpoint.source={source}")
    loaded = checkpoints.load(definition, torch.device("cpu"), torch.float32)
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {torch.float32}
