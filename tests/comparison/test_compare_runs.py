"""`compare` on runs of the mini study: what pairs, what is refused, what the numbers are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import sd2eval
from sd2eval.comparison.result import RunComparison
from sd2eval.errors import InputError
from sd2eval.records import ImageRecord
from sd2eval.seals import seal, unseal
from sd2eval.statistics import holm
from sd2eval.store import RunFolder
from tests import damage
from tests.compared import swept


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return swept(tmp_path_factory)


@pytest.fixture(scope="module")
def found(runs: dict[str, Path]) -> RunComparison:
    return sd2eval.compare_runs(runs["base"], runs["steps"])


def row_of(found: RunComparison, metric: str, checkpoint: str, scale: float | None) -> pd.Series:
    frame = found.frame
    at_scale = frame["scale_a"].isna() if scale is None else frame["scale_a"] == scale
    return frame[(frame["metric"] == metric) & (frame["checkpoint_a"] == checkpoint) & at_scale].iloc[0]


def test_values_are_those_of_the_runs(runs: dict[str, Path], found: RunComparison) -> None:
    for side, name in (("a", "base"), ("b", "steps")):
        for score in sd2eval.load_run(runs[name]).results.itertuples():
            row = row_of(found, score.metric, score.checkpoint, score.guidance_scale)
            assert row[side] == pytest.approx(score.value, rel=1e-9, abs=1e-12)
            assert row["difference"] == row["b"] - row["a"]


def cosines(run: Path, checkpoint: str, column: int) -> np.ndarray:
    store = RunFolder(run)
    images = np.concatenate(
        [store.read_shard(checkpoint, block)[0]["score"][:, column] for block in store.blocks(checkpoint)]
    ).astype(float)
    texts = store.read_arrays("reference")["texts.score"].astype(float)
    return (images * texts).sum(axis=1) / np.linalg.norm(images, axis=1) / np.linalg.norm(texts, axis=1)


def test_the_score_is_tested_as_scipy_tests_pairs(runs: dict[str, Path], found: RunComparison) -> None:
    assert sd2eval.load_run(runs["base"]).prompts["image_id"].is_unique
    a, b = (cosines(runs[name], "512-base", 1) for name in ("base", "steps"))
    row = row_of(found, "clip_mini", "512-base", 3.0)
    assert row["p"] == pytest.approx(scipy.stats.ttest_rel(b, a).pvalue, rel=1e-6)


def test_swapping_the_runs_turns_every_sign_exactly(runs: dict[str, Path], found: RunComparison) -> None:
    swapped = sd2eval.compare_runs(runs["steps"], runs["base"]).frame
    frame = found.frame
    assert (swapped["difference"] == -frame["difference"]).all()
    assert (swapped["low"] == -frame["high"]).all()
    assert (swapped[["p", "p_corrected", "stderr"]] == frame[["p", "p_corrected", "stderr"]]).all(axis=None)
    turned = {"better": "worse", "worse": "better"}
    assert list(swapped["verdict"]) == [turned.get(verdict, verdict) for verdict in frame["verdict"]]


def test_a_run_is_identical_with_itself(runs: dict[str, Path]) -> None:
    same = sd2eval.compare_runs(runs["base"], runs["base"])
    assert set(same.frame["verdict"]) == {"identical"}
    assert (same.frame[["p", "p_corrected"]] == 1).all(axis=None)
    assert same.sentence == "A and B are identical: all 24 pairs of images are the same, bit for bit."
    assert same.differs == []


def test_what_differs_is_named(runs: dict[str, Path], found: RunComparison) -> None:
    assert [tuple(item) for item in found.differs] == [("sampler.steps", 2, 6)]
    two = sd2eval.compare_runs(runs["base"], a="512-base@1.5", b="512-base@3")
    assert [tuple(item) for item in two.differs] == [("guidance scale", 1.5, 3.0)]


def test_two_checkpoints_of_one_run(runs: dict[str, Path]) -> None:
    two = sd2eval.compare_runs(runs["base"], a="512-base", b="x4-upscaling")
    assert set(two.frame["metric"]) == {"fd_mini", "kid_mini", "clip_mini"}  # of both; the rest x4's alone
    assert two.paired_by == "caption only"
    assert two.sentence.startswith(("A (512-base) and B (x4-upscaling)", "B (x4-upscaling) is "))
    fields = {item.field for item in two.differs}
    assert {"checkpoint.weights", "checkpoint.conditioning", "checkpoint.components.vae"} <= fields


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("seed", r"noise is unrelated \(seed: 0 in A, 1 in B\)"),
        ("protocol", r"scored differently \(.*protocol.quantize: round in A, truncate in B"),
    ],
)
def test_runs_that_do_not_pair_are_refused_with_field_and_values(
    runs: dict[str, Path], other: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"the runs do not pair, .*{reason}"):
        sd2eval.compare_runs(runs["base"], runs[other])


def test_fewer_captions_need_common_and_give_those_of_both(runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"6 in A, 4 in B, 4 in both\); common=true"):
        sd2eval.compare_runs(runs["base"], runs["few"])
    common = sd2eval.compare_runs(runs["base"], runs["few"], common=True)
    assert set(common.frame["n"]) == {4}
    for score in sd2eval.load_run(runs["few"]).results.itertuples():
        row = row_of(common, score.metric, score.checkpoint, score.guidance_scale)
        assert row["b"] == pytest.approx(score.value, rel=1e-9, abs=1e-12)
        assert row["a"] == pytest.approx(
            score.value, rel=0.05, abs=0.05
        )  # the same images, from the longer run
    assert any("6 in A, 4 in B" in note for note in common.notes)


def test_an_invalid_image_leaves_both_sides_and_is_counted(runs: dict[str, Path], tmp_path: Path) -> None:
    broken = shutil.copytree(runs["steps"], tmp_path / "run")
    (manifest,) = broken.glob("shards/512-base/*/manifest.json")
    record = unseal(manifest.read_bytes())
    record["images"][1] |= {"invalid": "non-finite"}  # the first caption at the second scale
    manifest.write_bytes(seal(record))
    found = sd2eval.compare_runs(runs["base"], broken)
    row = row_of(found, "clip_mini", "512-base", 3.0)
    a, b = (cosines(runs[name], "512-base", 1)[1:] for name in ("base", "steps"))
    assert (row["n"], row["left_out"]) == (5, 1)
    assert row["p"] == pytest.approx(scipy.stats.ttest_rel(b, a).pvalue, rel=1e-6)
    assert row_of(found, "clip_mini", "512-base", 1.5)["n"] == 6
    assert any(note.startswith("1 pairs of images are left out") for note in found.notes)


def edited(run: Path, target: Path, **changes: Any) -> Path:
    """Copy a run, its record changed: `config`, `identity_fields` or `digests` updated."""
    shutil.copytree(run, target)
    record = json.loads((target / "run.json").read_text())
    for part, change in changes.items():
        record[part] |= change
    damage.rewrite(target, "run.json", record)
    return target


def test_one_checkpoint_each_is_matched_whatever_its_name(runs: dict[str, Path], tmp_path: Path) -> None:
    definitions = json.loads((runs["seed"] / "run.json").read_text())["config"]["checkpoint_definitions"]
    renamed = {"mine": definitions["512-base"] | {"name": "mine"}}
    digests = {"weights/mine": 64 * "0"}
    mine = edited(runs["seed"], tmp_path / "run", config={"checkpoint_definitions": renamed}, digests=digests)
    (mine / "shards" / "512-base").rename(mine / "shards" / "mine")
    found = sd2eval.compare_runs(runs["seed"], mine)
    assert {(row.checkpoint_a, row.checkpoint_b) for row in found.rows} == {("512-base", "mine")}
    assert found.sentence.startswith("A (512-base) and B (mine) are identical")
    assert [item.field for item in found.differs] == ["checkpoint.weights"]


def test_captions_are_matched_by_their_id_not_by_their_place(
    runs: dict[str, Path], found: RunComparison, tmp_path: Path
) -> None:
    """A run with everything in the opposite order compares as it did."""
    turned = shutil.copytree(runs["steps"], tmp_path / "run")
    store = RunFolder(turned)
    prompts = store.read_prompts()
    damage.rewrite(turned, "prompts.json", prompts[::-1])
    reference = store.read_arrays("reference")
    store.write_arrays("reference", reference | {"texts.score": reference["texts.score"][::-1]})
    for name in ("512-base", "x4-upscaling"):
        (block,) = store.blocks(name)
        arrays, manifest = store.read_shard(name, block)
        shutil.rmtree(turned / "shards" / name)
        pairs = [manifest["images"][row : row + 2] for row in range(0, 12, 2)]
        images = [ImageRecord(**image) for pair in pairs[::-1] for image in pair]
        turned_arrays = {key: array[::-1] for key, array in arrays.items()}
        store.publish(name, block, turned_arrays, images, [], [1.5, 3.0])
    again = sd2eval.compare_runs(runs["base"], turned).frame
    assert sd2eval.compare_runs(runs["steps"], turned).identical_images == 24
    for column in ("a", "b", "stderr", "p"):
        np.testing.assert_allclose(again[column], found.frame[column], rtol=1e-8, atol=1e-12)


def test_how_images_are_drawn_may_differ_how_they_are_scored_may_not(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    base = runs["base"]
    drawn = {
        "protocol.name": "mine",
        "protocol.sample_at": "protocol",
        "sampler.eta": 1.0,
        "dtype": "float16",
    }
    found = sd2eval.compare_runs(base, edited(base, tmp_path / "drawn", identity_fields=drawn))
    assert {item.field for item in found.differs} == set(drawn)
    for name, change in (
        ("field", {"identity_fields": {"protocol.fit": "squash"}}),
        ("unknown", {"identity_fields": {"protocol.of_another_version": 1}}),
        ("extractor", {"digests": {"extractor/score": 64 * "0"}}),
        ("reference", {"digests": {"reference": 64 * "0"}}),
    ):
        with pytest.raises(InputError, match="scored differently"):
            sd2eval.compare_runs(base, edited(base, tmp_path / name, **change))


def test_an_incomplete_checkpoint_is_refused_and_the_others_can_be_chosen(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    part = shutil.copytree(runs["base"], tmp_path / "run")
    shutil.rmtree(part / "shards" / "512-base")
    with pytest.raises(InputError, match="512-base is not complete"):
        sd2eval.compare_runs(runs["steps"], part)
    assert sd2eval.compare_runs(runs["steps"], part, a="x4-upscaling", b="x4-upscaling").rows


def test_a_caption_with_another_text_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    other = shutil.copytree(runs["base"], tmp_path / "run")
    prompts = json.loads((other / "prompts.json").read_text())
    prompts[2]["text"] = "another"
    damage.rewrite(other, "prompts.json", prompts)
    key = prompts[2]["caption_id"]
    with pytest.raises(InputError, match=rf"caption {key} is not the same \(text: .* in A, 'another' in B\)"):
        sd2eval.compare_runs(runs["base"], other)


def test_checkpoints_and_scales_of_one_run_alone_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    found = sd2eval.compare_runs(
        runs["few"], runs["base"], a="x4-upscaling@1.5", b="x4-upscaling", common=True
    )
    assert {(row.scale_a, row.scale_b) for row in found.rows} == {(1.5, 1.5)}
    definitions = json.loads((runs["base"] / "run.json").read_text())["config"]["checkpoint_definitions"]
    one = edited(
        runs["base"],
        tmp_path / "run",
        config={"checkpoint_definitions": {"512-base": definitions["512-base"]}},
    )
    assert (
        "only in A and not compared: checkpoint x4-upscaling" in sd2eval.compare_runs(runs["base"], one).notes
    )


def test_no_torch_is_needed(runs: dict[str, Path]) -> None:
    code = (
        "import sys; from sd2eval.__main__ import main; "
        f"main(['compare', {str(runs['base'])!r}, {str(runs['steps'])!r}]); print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"torch", "matplotlib", "hydra", "scipy.stats"}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_metrics_and_scales_narrow_the_family(runs: dict[str, Path]) -> None:
    narrow = sd2eval.compare_runs(
        runs["base"], runs["steps"], a="x4-upscaling", metrics=["psnr", "ssim"], scales=[3.0]
    )
    assert [(row.metric, row.scale_b) for row in narrow.rows] == [("psnr", 3.0), ("ssim", 3.0)]
    assert [row.p_corrected for row in narrow.rows] == list(holm([row.p for row in narrow.rows]))
    assert "PSNR" in narrow.sentence
    assert "SSIM" in narrow.sentence
