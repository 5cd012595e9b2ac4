"""Paired metrics through the whole sweep, and drawing at the protocol's own resolution."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

import sd2eval
from sd2eval import masks
from sd2eval.checkpoints import load
from sd2eval.config import from_overrides
from sd2eval.errors import InputError
from sd2eval.images import square
from sd2eval.run_tables import Run
from sd2eval.seals import seal
from sd2eval.store import RunFolder

SMALL = ("prompts.n=5", "sampler.steps=2", "guidance_scales=[1.5,3.0]", "progress=false")
KINDS = "checkpoints=[512-inpainting,512-depth,x4-upscaling,512-base]"
DATA = Path(sd2eval.__path__[0], "mini", "data", "images")
WHOLE = ["psnr", "ssim", "lpips_mini"]
MASKED = [f"{name}_mask" for name in WHOLE]


def sweep(out: Path, *overrides: str) -> Run:
    return sd2eval.run_sweep(*SMALL, f"out={out}", *overrides)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sweep(tmp_path_factory.mktemp("paired") / "run", KINDS)


def values(run: Run, checkpoint: str, scale: float) -> pd.Series[float]:
    rows = run.results
    rows = rows[(rows["checkpoint"] == checkpoint) & (rows["guidance_scale"] == scale)]
    return rows.set_index("metric")["value"]


def drawn(run: Run, checkpoint: str, scale: float) -> NDArray[np.uint8]:
    folder = run.path / "images" / f"{checkpoint}_g{scale:g}"
    files = [folder / f"{caption}.png" for caption in run.prompts["caption_id"]]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def originals(run: Run) -> NDArray[np.uint8]:
    return np.stack(
        [np.asarray(Image.open(DATA / name).convert("RGB")) for name in run.prompts["image_file"]]
    )


def torch_layout(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def test_each_checkpoint_has_the_rows_that_apply_to_it(done: Run) -> None:
    features = {"fd_mini", "kid_mini", "clip_mini", "precision_mini", "recall_mini"}
    features |= {"density_mini", "coverage_mini"}
    more = {
        "512-base": [],
        "x4-upscaling": WHOLE,
        "512-inpainting": WHOLE + MASKED,
        "512-depth": ["depth_agreement_mini"],
    }
    for checkpoint, paired in more.items():
        assert set(values(done, checkpoint, 3.0).index) == features | set(paired)
    assert np.isfinite(done.results[["value", "stderr"]].to_numpy()).all()
    assert (done.results["n"] == 5).all()


@pytest.mark.parametrize("checkpoint", ["512-inpainting", "x4-upscaling"])
@pytest.mark.parametrize("scale", [1.5, 3.0])
def test_scores_are_those_of_the_written_images_and_the_data_sets(
    done: Run, checkpoint: str, scale: float
) -> None:
    pair = torch_layout(drawn(done, checkpoint, scale)), torch_layout(originals(done))
    psnr = peak_signal_noise_ratio(*pair, data_range=255.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(*pair, data_range=255.0, reduction="none")
    found = values(done, checkpoint, scale)
    assert found["psnr"] == pytest.approx(float(psnr.mean()), rel=1e-5)
    assert found["ssim"] == pytest.approx(float(ssim.mean()), rel=1e-5)


def test_the_mask_that_counts_is_the_one_that_was_painted(done: Run) -> None:
    painted = np.stack([masks.mask(0, caption, 64) for caption in done.prompts["caption_id"]])
    images = drawn(done, "512-inpainting", 3.0)
    apart = np.square(images.astype(float) - originals(done)).mean(axis=3)
    want = np.mean(
        [10 * np.log10(255**2 / part[mask].mean()) for part, mask in zip(apart, painted, strict=True)]
    )
    assert values(done, "512-inpainting", 3.0)["psnr_mask"] == pytest.approx(want, rel=1e-5)


def test_depth_agreement_is_that_of_the_two_images_depths(done: Run) -> None:
    _, (definition,) = from_overrides("checkpoints=[512-depth]")
    adapter = load(definition, torch.device("cpu"), torch.float32).adapter
    assert adapter is not None
    depths = [
        adapter(images, [0, 1], 0).channels for images in (drawn(done, "512-depth", 3.0), originals(done))
    ]
    first, second = (depth.flatten(1).numpy() for depth in depths if depth is not None)
    want = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])
    assert values(done, "512-depth", 3.0)["depth_agreement_mini"] == pytest.approx(want, abs=1e-5)


def test_another_shard_size_and_resuming_give_the_same_scores(done: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sweep(out, KINDS, "shard_size=1")
    for name in ("512-inpainting", "512-depth", "x4-upscaling"):
        shutil.rmtree(out / "shards" / name / "00000001-00000001", ignore_errors=True)
        shutil.rmtree(sorted((out / "shards" / name).iterdir())[-1])
    (out / "results.csv").unlink()
    again = sweep(out, KINDS)
    for column in ("value", "stderr"):
        np.testing.assert_allclose(again.results[column], done.results[column], rtol=2e-3, atol=1e-4)
    assert again.info.identity == done.info.identity


def test_a_finished_run_is_known_to_be_finished(done: Run) -> None:
    stamps = {file: file.stat().st_mtime_ns for file in done.path.rglob("*") if file.is_file()}
    sweep(done.path, KINDS)
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps


def test_without_a_metric_that_needs_it_the_perceptual_network_is_not_loaded(tmp_path: Path) -> None:
    nowhere = "protocol.perceptual.source=/no/such/folder"
    run = sweep(tmp_path / "text", "checkpoints=[512-base]", nowhere)
    assert "extractor/perceptual" not in run.info.digests
    few = sweep(tmp_path / "few", "checkpoints=[x4-upscaling]", nowhere, "protocol.metrics=[fd_mini,psnr]")
    assert set(few.results["metric"]) == {"fd_mini", "psnr"}
    with pytest.raises(InputError, match="/no/such/folder"):
        sweep(tmp_path / "all", "checkpoints=[x4-upscaling]", nowhere)


def test_a_protocols_digest_does_not_depend_on_the_checkpoints(done: Run, tmp_path: Path) -> None:
    text = sweep(tmp_path / "run", "checkpoints=[512-base]")
    assert text.info.digests["protocol"] == done.info.digests["protocol"]


def test_a_shard_without_a_metrics_values_is_named(done: Run, tmp_path: Path) -> None:
    shutil.copytree(done.path, tmp_path / "run")
    store = RunFolder(tmp_path / "run")
    (block,) = store.blocks("x4-upscaling")
    arrays, _ = store.read_shard("x4-upscaling", block)
    folder = store.path / "shards" / "x4-upscaling" / block.key
    del arrays["ssim"]
    np.savez(folder / "features.npz", **arrays)
    manifest: dict[str, Any] = store.read_manifest("x4-upscaling", block)
    manifest["features_sha256"] = hashlib.sha256((folder / "features.npz").read_bytes()).hexdigest()
    (folder / "manifest.json").write_bytes(seal(manifest))
    with pytest.raises(InputError, match=rf"x4-upscaling/{block.key}: has no ssim; .*verify .* --repair"):
        sd2eval.write_report(store.path)


def test_native_draws_at_the_protocols_resolution_and_is_another_run(tmp_path: Path) -> None:
    usual = sweep(tmp_path / "usual", "checkpoints=[768-v]")
    native = sweep(tmp_path / "native", "checkpoints=[768-v]", "protocol=mini_native")
    assert usual.info.config["checkpoint_definitions"]["768-v"]["resolution"] == 96
    assert native.info.config["checkpoint_definitions"]["768-v"]["resolution"] == 64
    assert native.info.identity != usual.info.identity
    assert set(native.results["protocol"]).isdisjoint(usual.results["protocol"])
    assert drawn(native, "768-v", 3.0).shape == drawn(usual, "768-v", 3.0).shape == (5, 64, 64, 3)
    assert not np.array_equal(drawn(native, "768-v", 3.0), drawn(usual, "768-v", 3.0))
    with pytest.raises(InputError, match="out holds another run"):
        sweep(usual.path, "checkpoints=[768-v]", "protocol=mini_native")


def test_native_changes_no_pixel_of_what_draws_there_anyway(done: Run, tmp_path: Path) -> None:
    native = sweep(tmp_path / "run", KINDS, "protocol=mini_native")
    for checkpoint in ("512-inpainting", "x4-upscaling"):
        assert np.array_equal(drawn(native, checkpoint, 3.0), drawn(done, checkpoint, 3.0))
        pd.testing.assert_series_equal(values(native, checkpoint, 3.0), values(done, checkpoint, 3.0))


def test_a_checkpoint_larger_than_the_protocol_is_compared_at_the_protocols_size(tmp_path: Path) -> None:
    """The original that the checkpoint was shown, the mask and the image: all from 128 to 64 pixels."""
    run = sweep(tmp_path / "run", "checkpoint=512-inpainting", "checkpoint.resolution=128")
    images = drawn(run, "512-inpainting", 3.0)
    assert images.shape == (5, 64, 64, 3)
    shown = originals(run)
    for size in (128, 64):
        shown = np.stack([square(image, size) for image in shown])
    apart = np.square(images.astype(float) - shown).mean(axis=3)
    found = values(run, "512-inpainting", 3.0)
    assert found["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / apart.mean((1, 2)))), rel=1e-5)
    painted = [masks.mask(0, caption, 128) for caption in run.prompts["caption_id"]]
    half = [mask.reshape(64, 2, 64, 2).mean((1, 3)) >= 0.5 for mask in painted]
    inside = [10 * np.log10(255**2 / part[mask].mean()) for part, mask in zip(apart, half, strict=True)]
    assert found["psnr_mask"] == pytest.approx(np.mean(inside), rel=1e-5)
