from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import sd2eval
from sd2eval.config import from_overrides
from sd2eval.errors import EXIT_RESUMABLE, InputError, Stopped
from sd2eval.extractors import load_extractor
from sd2eval.records import Score
from sd2eval.run_tables import Run
from sd2eval.store import RunFolder

SMALL = ("experiment=smoke", "prompts.n=6", "shard_size=2", "progress=false")
CELLS = ["512-base_g1.5", "512-base_g3", "x4-upscaling_g1.5", "x4-upscaling_g3"]


def sweep(out: Path, *overrides: str) -> Run:
    return sd2eval.run_sweep(*SMALL, f"out={out}", *overrides)


def pixels(out: Path, cell: str) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(Image.open(file)) for file in sorted((out / "images" / cell).iterdir())}


def assert_same_images(a: Path, b: Path, cell: str) -> None:
    """The published tolerance: at most one level, in at most 0.1% of the values."""
    left, right = pixels(a, cell), pixels(b, cell)
    assert left.keys() == right.keys()
    apart = np.stack([np.abs(left[name].astype(int) - right[name].astype(int)) for name in left])
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 1e-3


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sweep(tmp_path_factory.mktemp("done") / "run")


def test_a_run_folder_holds_what_the_contract_names(done: Run) -> None:
    for name in ("run.json", "results.csv", "results.json", "emissions.csv", "pareto.png", "pareto.svg"):
        assert (done.path / name).stat().st_size > 0, name
    captions = {f"{caption}.png" for caption in done.prompts["caption_id"]}
    for cell in CELLS:
        assert {file.name for file in (done.path / "images" / cell).iterdir()} == captions
    assert {file.name for file in (done.path / "sheets").iterdir()} == {"512-base.png", "x4-upscaling.png"}
    assert not list(done.path.rglob("*tmp*"))


def test_results_are_tidy_and_finite(done: Run) -> None:
    assert list(done.results.columns) == list(Score.__dataclass_fields__)
    features, paired = ["fd_mini", "kid_mini", "clip_mini"], ["psnr", "ssim", "lpips_mini"]
    features += ["precision_mini", "recall_mini", "density_mini", "coverage_mini"]
    for cell, rows in done.results.groupby(["checkpoint", "guidance_scale"]):
        assert list(rows["metric"]) == (features if cell[0] == "512-base" else [*features, *paired])
    assert len(done.results) == len(CELLS) * len(features) + 2 * len(paired)
    assert np.isfinite(done.results[["value", "stderr"]].to_numpy()).all()
    assert (done.results["n"] == 6).all()
    written = json.loads((done.path / "results.json").read_text())["scores"]
    pd.testing.assert_frame_equal(pd.DataFrame(written), done.results)


def test_the_record_names_every_input_by_digest(done: Run) -> None:
    digests = done.info.digests
    inputs = {
        "weights/512-base",
        "weights/x4-upscaling",
        "data/captions",
        "extractor/distance",
        "extractor/score",
        "extractor/perceptual",
    }
    assert inputs | {"reference", "protocol"} == set(digests)
    assert all(len(value) == 64 for value in digests.values())
    assert digests["weights/512-base"] != digests["weights/x4-upscaling"]
    assert set(done.info.versions) >= {"sd2eval", "torch", "diffusers", "python"}


def test_features_from_memory_are_those_of_the_png_files(done: Run) -> None:
    config, _ = from_overrides(*SMALL)
    extractor = load_extractor(config.protocol.distance, torch.device("cpu"))
    store = RunFolder(done.path)
    stored = [store.read_shard("512-base", block)[0]["distance"] for block in store.blocks("512-base")]
    order = [f"{caption}.png" for caption in done.prompts["caption_id"]]
    for column, cell in enumerate(CELLS[:2]):
        images = pixels(done.path, cell)
        again = extractor.images(np.stack([images[name] for name in order]))["features"]
        np.testing.assert_allclose(np.concatenate(stored)[:, column], again, rtol=1e-5, atol=1e-5)


def test_the_manifest_has_the_digest_of_every_image(done: Run) -> None:
    from sd2eval.images import digest, load_rgb

    store = RunFolder(done.path)
    for block in store.blocks("512-base"):
        for image in store.read_manifest("512-base", block)["images"]:
            cell = f"512-base_g{image['guidance_scale']:g}"
            assert (
                digest(load_rgb(store.path / "images" / cell / f"{image['caption_id']}.png"))
                == image["sha256"]
            )


@pytest.mark.parametrize("runtime", [("batch_size=1",), ("batch_size=5", "shard_size=6")])
def test_runtime_settings_do_not_change_the_images(
    done: Run, tmp_path: Path, runtime: tuple[str, ...]
) -> None:
    again = sweep(tmp_path / "run", *runtime)
    for cell in CELLS:
        assert_same_images(done.path, again.path, cell)
    np.testing.assert_allclose(again.results["value"], done.results["value"], rtol=1e-3, atol=1e-5)
    assert again.info.identity == done.info.identity


def test_a_subset_of_scales_and_a_longer_prompt_list_keep_the_images(done: Run, tmp_path: Path) -> None:
    again = sweep(tmp_path / "run", "guidance_scales=[3.0]", "checkpoints=[512-base]", "prompts.n=5")
    kept = pixels(again.path, "512-base_g3")
    whole = pixels(done.path, "512-base_g3")
    assert set(kept) < set(whole)
    assert max(np.abs(kept[name].astype(int) - whole[name].astype(int)).max() for name in kept) <= 1


def test_a_finished_run_is_not_touched_again(done: Run) -> None:
    before = {file: file.read_bytes() for file in done.path.rglob("*") if file.is_file()}
    stamps = {file: file.stat().st_mtime_ns for file in before}
    sweep(done.path)
    assert {file: file.read_bytes() for file in done.path.rglob("*") if file.is_file()} == before
    assert {file: file.stat().st_mtime_ns for file in before} == stamps


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seed=1", "seed: 0 there, 1 here"),
        ("sampler.steps=3", "sampler.steps"),
        ("guidance_scales=[1.5]", "guidance_scales"),
    ],
)
def test_another_config_in_the_same_folder_is_refused_by_field(done: Run, override: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        sweep(done.path, override)


def test_changed_captions_are_refused(done: Run, tmp_path: Path) -> None:
    root = Path(sd2eval.__path__[0], "mini", "data")
    data = json.loads((root / "annotations" / "captions_mini.json").read_text())
    data["annotations"][0]["caption"] += " again"
    changed = tmp_path / "captions.json"
    changed.write_text(json.dumps(data))
    with pytest.raises(InputError, match="captions_sha256"):
        sweep(done.path, f"data.captions={changed}")


def stop_after_first_shard(out: Path, thread_done: threading.Event) -> None:
    while not list(out.glob("shards/*/0*")) and not thread_done.is_set():
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(done: Run, tmp_path: Path) -> None:
    out, over = tmp_path / "run", threading.Event()
    killer = threading.Thread(target=stop_after_first_shard, args=(out, over))
    killer.start()
    try:
        with pytest.raises(Stopped, match="SIGINT"):
            sweep(out)
    finally:
        over.set()
        killer.join()
    first = next(out.glob("shards/*/0*")) / "features.npz"
    stamp = first.stat().st_mtime_ns
    assert len(sd2eval.load_run(out).results) < len(done.results)
    again = sweep(out)
    assert first.stat().st_mtime_ns == stamp
    assert (again.path / "results.csv").read_bytes() == (done.path / "results.csv").read_bytes()
    emissions = again.emissions
    assert (emissions[emissions["stage"] == "setup"]["seconds"] > 0).all()


def test_sigkill_at_any_shard_ends_with_the_same_results(done: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "sd2eval", "sweep", *SMALL, f"out={out}"]
    for shards in (1, 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while len(list(out.glob("shards/*/0*"))) < shards:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert (out / "results.csv").read_bytes() == (done.path / "results.csv").read_bytes()
    assert not list(out.rglob("*tmp*"))


def test_sigterm_ends_with_the_code_for_resumable(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sd2eval", "sweep", *SMALL, f"out={tmp_path / 'run'}", "prompts.n=64"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("run/shards/*/0*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_RESUMABLE
    assert "SIGTERM" in errors
    assert "same command again" in errors


def test_emissions_hold_every_cell_and_the_setup_and_add_up(done: Run) -> None:
    emissions = done.emissions
    cells = emissions.dropna(subset=["guidance_scale"])
    assert len(cells.groupby(["checkpoint", "guidance_scale"])) == len(CELLS)
    assert set(cells["stage"]) == {"load", "sample", "decode", "features", "write"}
    assert set(emissions[emissions["guidance_scale"].isna()]["stage"]) == {"setup", "reference", "metrics"}
    assert (emissions["kwh"] > 0).all()
    store = RunFolder(done.path)
    readings = [row for session in store.read_sessions() for row in session["readings"]]
    for name in ("512-base", "x4-upscaling"):
        readings += [
            row for block in store.blocks(name) for row in store.read_manifest(name, block)["energy"]
        ]
    for column in ("seconds", "kwh", "kg_co2"):
        assert emissions[column].sum() == pytest.approx(sum(row[column] for row in readings), rel=1e-12)


@pytest.mark.parametrize(("keep", "files", "sheets"), [("grid", 0, 2), ("none", 0, 0)])
def test_images_can_be_left_out_without_changing_a_score(
    done: Run, tmp_path: Path, keep: str, files: int, sheets: int
) -> None:
    run = sweep(tmp_path / "run", f"images={keep}")
    assert len(list(run.path.glob("images/*/*.png"))) == files
    assert len(list(run.path.glob("sheets/*.png"))) == sheets
    assert (run.path / "results.csv").read_bytes() == (done.path / "results.csv").read_bytes()


def test_every_kind_of_checkpoint_runs_on_photographs(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    rng = np.random.default_rng(0)
    sizes = [(90, 120), (200, 64), (64, 64), (70, 300)]
    for number, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            root / "val2017" / f"{number:012d}.jpg"
        )
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(4)]
    captions = [
        {"id": 10 + number, "image_id": number, "caption": f"photograph {number}"} for number in range(4)
    ]
    (root / "annotations" / "captions_val2017.json").write_text(
        json.dumps({"images": images, "annotations": captions})
    )
    run = sweep(
        tmp_path / "run", "data=coco", f"data.root={root}", "prompts.n=4", "guidance_scales=[2.0]",
        "protocol.metrics=[fd_mini,clip_mini,psnr,lpips_mini_mask,depth_agreement_mini]",
        "checkpoints=[512-base,768-v,512-depth,512-inpainting,x4-upscaling]",
    )  # fmt: skip
    assert run.results.groupby("checkpoint").ngroups == 5
    for cell in run.results["checkpoint"].unique():
        assert {image.shape for image in pixels(run.path, f"{cell}_g2").values()} == {(64, 64, 3)}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("checkpoint.prediction_type=v_prediction", "predicts epsilon, not v"),
        ("energy.country=ZZZ", "not among the"),
        ("protocol.score.source=nowhere", "nowhere"),
    ],
)
def test_a_refused_run_leaves_no_folder(override: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=line):
        sweep(tmp_path / "outputs" / "run", "checkpoint=512-base", "checkpoint.name=mine", override)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_run_keeps_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "other").mkdir(parents=True)
    with pytest.raises(InputError, match="not v"):
        sweep(tmp_path / "outputs" / "run", "checkpoint=512-base", "checkpoint.prediction_type=v_prediction")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["other"]


def test_a_folder_without_a_finished_shard_is_free_for_other_settings(tmp_path: Path) -> None:
    """A mistake that shows only after the run was recorded must not block its own correction."""
    out = tmp_path / "run"
    out.mkdir()
    with pytest.raises(InputError, match="predicts epsilon, not v"):
        sweep(out, "checkpoint=512-base", "checkpoint.name=mine", "checkpoint.prediction_type=v_prediction")
    assert (out / "run.json").exists()
    (out / "images" / "mine_g1.5").mkdir(parents=True)
    (out / "images" / "mine_g1.5" / "1.png").write_bytes(b"of the run that was not")
    run = sweep(out, "checkpoint=512-base", "checkpoint.name=mine", "prompts.n=5")
    assert set(run.results["n"]) == {5}
    assert len(run.prompts) == 5
    assert not (out / "images" / "mine_g1.5" / "1.png").exists()
    with pytest.raises(InputError, match="out holds another run"):
        sweep(out, "checkpoint=512-base", "checkpoint.name=mine", "prompts.n=6")
