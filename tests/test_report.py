"""Run folders written by hand, so that what the report says of them is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sd2eval
from sd2eval import evaluate, report
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, Reference
from sd2eval.plan import Block
from sd2eval.records import SCHEMA_VERSION, EmissionRow, EnergyReading, ImageRecord, Prompt, RunInfo
from sd2eval.store import RunFolder

N, SCALES, NAMES = 12, [1.5, 3.0], ["512-base", "768-v"]
RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(40, 3))
TEXTS = RNG.normal(size=(N, 4))
READING = EnergyReading(stage="sample", seconds=3.0, kwh=0.02, kg_co2=0.007, method="estimated")


def features(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(NAMES.index(name))
    return {
        "distance": rng.normal(size=(N, len(SCALES), 3)) + NAMES.index(name),
        "score": TEXTS[:, None] + rng.normal(size=(N, len(SCALES), 4)),
    }


def begin(path: Path) -> RunFolder:
    store = RunFolder(path)
    metrics = ["fd_mini", "kid_mini", "clip_mini"]
    config: dict[str, Any] = {
        "checkpoint_definitions": {name: {} for name in NAMES},
        "guidance_scales": SCALES,
        "prompts": {"n": N},
        "protocol": {"name": "mini", "metrics": metrics},
        "sampler": {"steps": 50},
    }
    store.write_info(
        RunInfo(
            schema_version=SCHEMA_VERSION,
            identity="i",
            identity_fields={},
            config=config,
            digests={"protocol": "0123456789abcdef"},
        )
    )
    store.write_prompts(
        [
            Prompt(caption_id=100 + i, image_id=i // 2, image_file=f"{i // 2}.jpg", text=f"caption {i}")
            for i in range(N)
        ]
    )
    store.write_arrays("reference", {"distance": REFERENCE, "score_text": TEXTS})
    return store


def publish(store: RunFolder, name: str, block: Block, invalid: tuple[int, ...] = ()) -> None:
    part = {key: value[block.first : block.last + 1] for key, value in features(name).items()}
    images = [
        ImageRecord(
            caption_id=100 + position,
            guidance_scale=scale,
            sha256="0",
            truncated=False,
            invalid="non-finite" if position in invalid else "",
        )
        for position in range(block.first, block.last + 1)
        for scale in SCALES
    ]
    store.publish(name, block, part, images, [READING], SCALES)


@pytest.fixture
def store(tmp_path: Path) -> RunFolder:
    store = begin(tmp_path / "run")
    for name in NAMES:
        publish(store, name, Block(0, 6))
        publish(store, name, Block(7, 11))
    store.write_session("a", [("", dataclasses.replace(READING, stage="setup")), ("768-v", READING)], "FRA")
    return store


def value(results: pd.DataFrame, name: str, scale: float, metric: str) -> pd.Series:
    chosen = results[
        (results["checkpoint"] == name) & (results["guidance_scale"] == scale) & (results["metric"] == metric)
    ]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_scores_are_the_metrics_of_each_cells_features_in_prompt_order(store: RunFolder) -> None:
    report.write_report(store.path)
    results = sd2eval.load_run(store.path).results
    assert len(results) == len(NAMES) * len(SCALES) * 3
    for name in NAMES:
        for column, scale in enumerate(SCALES):
            data = features(name)
            want = METRICS["fd_mini"].estimate(data["distance"][:, column], Reference(REFERENCE)).value
            assert value(results, name, scale, "fd_mini")["value"] == pytest.approx(want)
            cosines = [
                image @ text / np.linalg.norm(image) / np.linalg.norm(text)
                for image, text in zip(data["score"][:, column], TEXTS, strict=True)
            ]
            assert value(results, name, scale, "clip_mini")["value"] == pytest.approx(np.mean(cosines))


def test_captions_of_one_image_are_not_taken_for_independent(store: RunFolder) -> None:
    report.write_report(store.path)
    row = value(sd2eval.load_run(store.path).results, "512-base", 1.5, "clip_mini")
    data = features("512-base")["score"][:, 0]
    cosines = (data * TEXTS).sum(1) / np.linalg.norm(data, axis=1) / np.linalg.norm(TEXTS, axis=1)
    pairs = (cosines - cosines.mean()).reshape(-1, 2).sum(1)
    groups = len(pairs)
    assert row["stderr"] == pytest.approx(np.sqrt(groups / (groups - 1) * (pairs**2).sum()) / N)


def test_invalid_images_are_in_no_score_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path / "run")
    publish(store, "512-base", Block(0, 11), invalid=(3, 4))
    results = sd2eval.load_run(store.path).results
    keep = [position for position in range(N) if position not in (3, 4)]
    want = METRICS["fd_mini"].estimate(features("512-base")["distance"][keep, 0], Reference(REFERENCE)).value
    row = value(results, "512-base", 1.5, "fd_mini")
    assert row["n"] == N - 2
    assert row["value"] == pytest.approx(want)
    report.show(sd2eval.load_run(store.path))
    assert "4 images are invalid" in capsys.readouterr().out


def test_an_incomplete_checkpoint_has_no_score_and_the_report_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path / "run")
    publish(store, "512-base", Block(0, 11))
    publish(store, "768-v", Block(0, 6))
    run = sd2eval.load_run(store.path)
    assert set(run.results["checkpoint"]) == {"512-base"}
    report.show(run)
    assert "2 of 4 cells are complete" in capsys.readouterr().out
    assert "2 of 4 cells" in (store.path / "pareto.svg").read_text()


def test_a_run_without_a_complete_cell_is_reported_without_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path / "run")
    publish(store, "512-base", Block(0, 6))
    report.show(sd2eval.load_run(store.path))
    assert "0 of 4 cells are complete" in capsys.readouterr().out
    assert not (store.path / "pareto.png").exists()


def test_a_run_that_was_stopped_before_its_reference_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path / "run")
    (store.path / "reference.npz").unlink()
    report.show(sd2eval.load_run(store.path))
    assert "no cell is complete yet" in capsys.readouterr().out


@pytest.mark.parametrize(("kept", "what"), [(None, "missing"), (0, "damaged"), (300, "damaged")])
def test_a_reference_that_is_gone_or_cut_is_named(tmp_path: Path, kept: int | None, what: str) -> None:
    store = begin(tmp_path / "run")
    publish(store, "512-base", Block(0, 11))
    file = store.path / "reference.npz"
    whole = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(whole[:kept])
    with pytest.raises(InputError, match=rf"reference\.npz: {what}.*verify"):
        sd2eval.load_run(store.path)


def test_emission_rows_share_equally_and_keep_setup_apart(store: RunFolder) -> None:
    rows = pd.DataFrame([dataclasses.asdict(row) for row in evaluate.emissions(store, store.read_info())])
    assert list(rows.columns) == [field.name for field in dataclasses.fields(EmissionRow)]
    setup = rows[rows["checkpoint"] == ""]
    assert setup[["stage", "kwh"]].to_numpy().tolist() == [["setup", 0.02]]
    base = rows[rows["checkpoint"] == "512-base"].groupby("guidance_scale")["kwh"].sum()
    other = rows[rows["checkpoint"] == "768-v"].groupby("guidance_scale")["kwh"].sum()
    assert base.to_list() == pytest.approx([0.02, 0.02])  # two shards over two scales
    assert other.to_list() == pytest.approx([0.03, 0.03])  # and the loading
    assert set(rows["grid"]) == {"FRA"}


def test_the_energy_of_a_run_is_called_estimated_as_soon_as_one_part_is(store: RunFolder) -> None:
    rows = evaluate.emissions(store, store.read_info())
    assert "estimated" in report.energy_note(rows)
    sensed = [dataclasses.replace(row, method="measured") for row in rows]
    assert "measured" in report.energy_note(sensed)
    assert "estimated" in report.energy_note([*sensed, rows[0]])
    report.write_report(store.path)
    assert "estimated" in (store.path / "pareto.svg").read_text()


def test_a_run_from_before_the_paired_metrics_is_read_as_it_is(store: RunFolder) -> None:
    """Its protocol does not list them, so that its shards need not have them."""
    info = store.read_info()
    kinds = {name: {"conditioning": "upscaling", "source": "x", "components": {}} for name in NAMES}
    store.write_info(dataclasses.replace(info, config=info.config | {"checkpoint_definitions": kinds}))
    report.write_report(store.path)
    results = sd2eval.load_run(store.path).results
    assert len(results) == len(NAMES) * len(SCALES) * 3
    assert not any("psnr" in metric for metric in results["metric"])


def with_psnr(path: Path, psnr: np.ndarray, invalid: tuple[int, ...] = ()) -> RunFolder:
    """A run of one upscaling checkpoint with PSNR values float [N, scales]."""
    store = begin(path)
    info = store.read_info()
    config = info.config | {"checkpoint_definitions": {"x4": {"conditioning": "upscaling"}}}
    config["protocol"] = {"name": "mini", "metrics": ["fd_mini", "clip_mini", "psnr", "psnr_mask"]}
    store.write_info(dataclasses.replace(info, config=config))
    images = [
        ImageRecord(
            caption_id=100 + i,
            guidance_scale=scale,
            sha256="0",
            truncated=False,
            invalid="non-finite" if i in invalid else "",
        )
        for i in range(N)
        for scale in SCALES
    ]
    arrays = features("512-base") | {"psnr": psnr}
    store.publish("x4", Block(0, N - 1), arrays, images, [READING], SCALES)
    return store


def test_a_paired_metric_is_the_mean_over_the_valid_images_clustered_by_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    psnr = np.random.default_rng(5).normal(20, 3, (N, len(SCALES)))
    psnr[[2, 3]] = np.nan  # what a shard holds for an invalid image
    store = with_psnr(tmp_path / "run", psnr, invalid=(2, 3))
    run = sd2eval.load_run(store.path)
    assert set(run.results["metric"]) == {"fd_mini", "clip_mini", "psnr"}
    row = value(run.results, "x4", 3.0, "psnr")
    values = np.delete(psnr[:, 1], [2, 3])
    sums = (values - values.mean()).reshape(-1, 2).sum(1)  # two captions per image
    assert row["value"] == pytest.approx(values.mean())
    assert row["stderr"] == pytest.approx(np.sqrt(5 / 4 * np.square(sums).sum()) / 10)
    assert (row["n"], row["direction"], row["unit"]) == (10, "higher", "dB")
    report.show(run)
    assert "Each image against the caption's own" in capsys.readouterr().out


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_where_its_image_is_valid(tmp_path: Path, broken: float) -> None:
    psnr = np.full((N, len(SCALES)), 20.0)
    psnr[4, 0] = broken
    store = with_psnr(tmp_path / "run", psnr)
    with pytest.raises(InputError, match="NaN or infinity in 1 of 12, first in row 4"):
        sd2eval.load_run(store.path)


def test_a_run_without_a_distance_has_tables_and_says_that_it_has_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = with_psnr(tmp_path / "run", np.full((N, len(SCALES)), 20.0))
    info = store.read_info()
    config = info.config | {"protocol": {"name": "mini", "metrics": ["psnr"]}}
    store.write_info(dataclasses.replace(info, config=config))
    report.show(sd2eval.load_run(store.path))
    printed = capsys.readouterr().out
    assert "PSNR" in printed
    assert "no figure" in printed
    assert not (store.path / "pareto.png").exists()


def test_results_json_is_the_csv(store: RunFolder) -> None:
    report.write_report(store.path)
    written = json.loads((store.path / "results.json").read_text())
    assert written["schema_version"] == SCHEMA_VERSION
    pd.testing.assert_frame_equal(pd.DataFrame(written["scores"]), pd.read_csv(store.path / "results.csv"))


def test_a_folder_without_a_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run here"):
        sd2eval.load_run(tmp_path)


def test_cut_captions_are_counted_once_however_many_cells_they_are_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path / "run")
    images = [
        ImageRecord(caption_id=100 + i, guidance_scale=scale, sha256="0", truncated=i in (2, 5))
        for i in range(N)
        for scale in SCALES
    ]
    store.publish("512-base", Block(0, N - 1), features("512-base"), images, [READING], SCALES)
    report.show(sd2eval.load_run(store.path))
    assert "2 captions are longer" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["20", "60"])
def test_names_and_numbers_of_the_table_are_whole_at_any_width(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path)
    for name in NAMES:
        publish(store, name, Block(0, N - 1))
    report.show(report.load_run(tmp_path))
    wide = capsys.readouterr().out.splitlines()
    monkeypatch.setenv("COLUMNS", columns)
    report.show(report.load_run(tmp_path))
    narrow = capsys.readouterr().out.splitlines()
    rows = [line for line in wide if line.startswith(tuple(NAMES))]
    assert len(rows) == len(NAMES) * len(SCALES)
    assert [line for line in narrow if line.startswith(tuple(NAMES))] == rows


def test_a_run_is_named_by_its_folder_or_its_record(tmp_path: Path) -> None:
    begin(tmp_path)
    assert report.load_run(tmp_path / "run.json").path == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file; a run folder is needed"):
        report.load_run(tmp_path / "file")
