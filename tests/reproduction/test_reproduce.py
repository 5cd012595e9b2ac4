"""Run folders written by hand, with scores at known distances from the card's figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import sd2eval
from sd2eval.records import RunInfo
from sd2eval.reproduction import reproduce
from tests.card_runs import (
    BASE,
    OLD,
    V,
    changed,
    half_width,
    protocol,
    record,
    scores,
    shown,
    write,
)


def test_a_band_is_its_parts_and_reaches_to_both_sides(tmp_path: Path) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE], n=2_500))
    spread = {"clip_score": 0.002}
    points = sd2eval.reproduce_run(run, protocol_spread=spread).points
    row = points[(points["metric"] == "clip_score") & (points["checkpoint"] == BASE)].iloc[3]
    z = norm.ppf((1 + 0.95 ** (1 / 8)) / 2)  # eight scales, and no FID at this n
    sampling = z * np.sqrt(0.0005**2 + 0.00025**2)  # the card's standard error at its own n = 10,000
    assert row["sampling"] == pytest.approx(sampling, rel=1e-9)
    assert row["reading"] == 0.0001
    assert row["protocol_spread"] == 0.002
    assert row["band"] == pytest.approx(sampling + 0.0021, rel=1e-9)
    assert (row["low"], row["high"]) == pytest.approx((0.3248 - row["band"], 0.3248 + row["band"]))


def test_bands_widen_with_the_number_of_comparisons_to_keep_the_whole_family() -> None:
    assert reproduce.critical(0.95, 1) == pytest.approx(1.959964, abs=1e-6)
    for k in (2, 16, 48):
        z = reproduce.critical(0.95, k)
        assert (2 * norm.cdf(z) - 1) ** k == pytest.approx(0.95)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_edge_of_the_band_is_where_the_verdict_turns(tmp_path: Path, sign: int) -> None:
    inside = sd2eval.reproduce_run(write(tmp_path / "a", record([BASE]), scores([BASE])))
    width = half_width(inside.points, "fid")
    for factor, verdict in ((0.99, "reproduced"), (1.01, "differs")):
        shifted = scores([BASE], {"fid": sign * factor * width})
        run = write(tmp_path / f"{factor}", record([BASE]), shifted)
        assert sd2eval.reproduce_run(run).verdict == verdict


# Verdicts


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_the_published_values_are_reproduced_with_and_without_noise(
    tmp_path: Path, rng: np.random.Generator | None
) -> None:
    rows = scores([BASE, V, OLD], rng=rng)
    result = sd2eval.reproduce_run(write(tmp_path, record([BASE, V, OLD]), rows))
    assert result.reproduced
    assert result.sentence.startswith("Reproduced: all 48 comparisons")
    assert "the protocol spread left out" in result.sentence
    assert (result.points["verdict"] == "reproduced").all()


def test_one_whole_checkpoint_is_enough_and_the_others_are_listed(tmp_path: Path) -> None:
    result = sd2eval.reproduce_run(write(tmp_path, record([V]), scores([V])))
    assert result.reproduced
    missing = result.points[result.points["checkpoint"] != V]
    assert set(missing["reason"]) == {"not in the run"}
    text = shown(result)
    assert f"FID and CLIP score of {BASE}, {OLD}: not in the run" in " ".join(text.split())


def test_one_point_that_differs_spoils_it_and_is_named_with_its_direction(tmp_path: Path) -> None:
    rows = list(scores([BASE, V]))
    width = half_width(
        sd2eval.reproduce_run(write(tmp_path / "a", record([BASE, V]), iter(rows))).points, "fid"
    )
    at = next(i for i, r in enumerate(rows) if (r.checkpoint, r.guidance_scale, r.metric) == (V, 3.0, "fid"))
    rows[at] = dataclasses.replace(rows[at], value=rows[at].value - 3 * width)
    result = sd2eval.reproduce_run(write(tmp_path / "b", record([BASE, V]), iter(rows)))
    assert result.verdict == "differs"
    assert "1 of 32" in result.sentence
    assert f"the FID of {V} at scale 3, {3 * width:.2f} lower (3.0 times its band)" in result.sentence
    (wrong,) = result.points[result.points["verdict"] == "differs"].to_dict("records")
    assert wrong["bands"] == pytest.approx(-3)


def test_points_that_agree_are_no_reproduction_while_a_checkpoint_lacks_some(tmp_path: Path) -> None:
    some = [1.5, 3.0, 8.0]
    info = record([BASE])
    few = dataclasses.replace(info, config=info.config | {"guidance_scales": some})
    result = sd2eval.reproduce_run(write(tmp_path, few, scores([BASE], scales=some)))
    assert result.verdict == "not comparable"
    assert "the 6 comparisons that can be made agree" in result.sentence
    left = result.points[(result.points["checkpoint"] == BASE) & (result.points["guidance_scale"] == 2)]
    assert set(left["reason"]) == {"scale not swept"}


def test_what_differs_differs_even_in_an_unfinished_run(tmp_path: Path) -> None:
    rows = scores([BASE], {"clip_score": 0.02}, scales=[1.5])
    result = sd2eval.reproduce_run(write(tmp_path, record([BASE]), rows))
    assert result.verdict == "differs"
    unfinished = result.points[(result.points["checkpoint"] == BASE) & (result.points["guidance_scale"] == 8)]
    assert set(unfinished["reason"]) == {"incomplete cell"}


def test_a_protocol_spread_widens_the_bands_of_its_metric_alone(tmp_path: Path) -> None:
    run = write(tmp_path, record([BASE]), scores([BASE], {"fid": 2.0}))
    assert sd2eval.reproduce_run(run).verdict == "differs"
    wide = sd2eval.reproduce_run(run, protocol_spread={"fid": 2.0})
    assert wide.reproduced
    assert "left out" not in wide.sentence
    assert set(wide.points.loc[wide.points["metric"] == "clip_score", "protocol_spread"]) == {0.0}


# What is not comparable


def definition(**values: Any) -> RunInfo:
    return changed(
        checkpoint_definitions={BASE: record([BASE]).config["checkpoint_definitions"][BASE] | values}
    )


def digest(name: str, value: str) -> RunInfo:
    return record([BASE], digests=record([BASE]).digests | {name: value})


BOTH = ("fid", "clip_score")
OTHERS = {
    "other steps (20, the card's 50)": (changed(sampler={"steps": 20, "eta": 0.0}), BOTH),
    "other eta (1, the card's 0)": (changed(sampler={"steps": 50, "eta": 1.0}), BOTH),
    "other resolution (256, the card's 512)": (protocol(resolution=256), BOTH),
    "other prompts": (digest("data/captions", "0" * 64), BOTH),
    "other weights (SHA-256 aaaaaaaa, published d635794c)": (digest(f"weights/{BASE}", "a" * 64), BOTH),
    "other prediction_type (v_prediction, the card's epsilon)": (
        definition(prediction_type="v_prediction"),
        BOTH,
    ),
    "other resolution (768, the card's 512)": (definition(resolution=768), BOTH),
    "other beta_end (0.02, the card's 0.012)": (definition(beta_end=0.02), BOTH),
    "other text (clip, the card's open_clip)": (definition(text="clip"), BOTH),
    "other reference (79 images, COCO 2017 has 5,000)": (record([BASE], reference_n=79), ("fid",)),
    "other extractor (dinov2, the card's Inception-v3)": (protocol(distance={"kind": "dinov2"}), ("fid",)),
    "other extractor (ViT-B-32 x, the card's": (
        protocol(score={"model": "ViT-B-32", "pretrained": "x"}),
        ("clip_score",),
    ),
    "clip_score not measured": (protocol(metrics=["fid"]), ("clip_score",)),
}


@pytest.mark.parametrize("reason", OTHERS)
def test_what_was_made_otherwise_is_not_compared(tmp_path: Path, reason: str) -> None:
    info, metrics = OTHERS[reason]
    rows = [row for row in scores([BASE]) if row.metric in info.config["protocol"]["metrics"]]
    result = sd2eval.reproduce_run(write(tmp_path, info, iter(rows)))
    assert result.verdict == "not comparable"
    own = result.points[result.points["checkpoint"] == BASE]
    for metric in BOTH:
        reasons = own.loc[own["metric"] == metric, "reason"]
        assert reasons.str.startswith(reason).all() if metric in metrics else (reasons == "").all()


@pytest.mark.parametrize(
    ("n", "comparable"), [(10_000, True), (9_950, True), (9_850, False), (30_000, False)]
)
def test_fid_is_compared_at_the_cards_n_only_and_the_clip_score_at_any(
    tmp_path: Path, n: int, comparable: bool
) -> None:
    points = sd2eval.reproduce_run(write(tmp_path, record([BASE]), scores([BASE], n=n))).points
    own = points[points["checkpoint"] == BASE]
    fid = own.loc[own["metric"] == "fid", "reason"]
    assert (fid == ("" if comparable else f"other n ({n:,}, the card's 10,000)")).all()
    assert (own.loc[own["metric"] == "clip_score", "verdict"] == "reproduced").all()


def test_weights_count_and_their_name_does_not(tmp_path: Path) -> None:
    info = record([BASE])
    own = dataclasses.replace(
        info,
        config=info.config
        | {"checkpoint_definitions": {"mine": info.config["checkpoint_definitions"][BASE]}},
        digests=info.digests | {"weights/mine": info.digests[f"weights/{BASE}"]},
    )
    rows = (dataclasses.replace(row, checkpoint="mine") for row in scores([BASE]))
    assert sd2eval.reproduce_run(write(tmp_path, own, rows)).reproduced


@pytest.mark.parametrize("resolution", [512, 768])
def test_768_v_may_be_drawn_at_either_size(tmp_path: Path, resolution: int) -> None:
    info = record([V])
    drawn = {V: info.config["checkpoint_definitions"][V] | {"resolution": resolution}}
    run = dataclasses.replace(info, config=info.config | {"checkpoint_definitions": drawn})
    assert sd2eval.reproduce_run(write(tmp_path, run, scores([V]))).reproduced


def test_a_score_without_a_standard_error_has_no_band(tmp_path: Path) -> None:
    rows = (dataclasses.replace(row, stderr=0.0) for row in scores([BASE]))
    points = sd2eval.reproduce_run(write(tmp_path, record([BASE]), rows)).points
    assert set(points.loc[points["checkpoint"] == BASE, "reason"]) == {"no standard error"}
