"""Run folders written by hand, with scores at known distances from the card's figure."""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import norm

import sd2eval
from sd2eval import card, reproduce, reproduce_table
from sd2eval.__main__ import main
from sd2eval.coco import FILES
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS
from sd2eval.published import published
from sd2eval.records import SCHEMA_VERSION, RunInfo, Score
from sd2eval.store import RunFolder
from sd2eval.tables import results_frame

BASE, V, OLD = "512-base-ema", "768-v-ema", "v1-5-pruned-emaonly"
SCALES = [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
STDERR = {"fid": 0.13, "clip_score": 0.00025}
CURVES = card.published_curves()
DEFINITIONS: dict[str, dict[str, Any]] = {
    BASE: {"prediction_type": "epsilon", "resolution": 512, "text": "open_clip"},
    V: {"prediction_type": "v_prediction", "resolution": 768, "text": "open_clip"},
    OLD: {"prediction_type": "epsilon", "resolution": 512, "text": "clip"},
}


def record(names: list[str], **changes: Any) -> RunInfo:
    """The record of a run that keeps to everything the card says; `changes` are made to it last."""
    common = {"conditioning": "text", "beta_start": 0.00085, "beta_end": 0.012}
    config: dict[str, Any] = {
        "checkpoint_definitions": {name: DEFINITIONS[name] | common for name in names},
        "guidance_scales": SCALES,
        "prompts": {"n": 10_000, "seed": 0},
        "protocol": {
            "name": "model_card",
            "resolution": 512,
            "metrics": ["fid", "kid", "clip_score"],
            "distance": {"kind": "inception"},
            "score": {"model": "ViT-g-14", "pretrained": "laion2b_s12b_b42k"},
        },
        "sampler": {"steps": 50, "eta": 0.0},
    }
    digests = {f"weights/{name}": str(published()[name].sha256) for name in names}
    digests |= {"data/captions": FILES["annotations/captions_val2017.json"], "protocol": "0123456789abcdef"}
    info = RunInfo(
        schema_version=SCHEMA_VERSION,
        identity="i",
        identity_fields={},
        config=config,
        digests=digests,
        reference_n=5_000,
    )
    return dataclasses.replace(info, **changes)


def scores(
    names: list[str],
    shift: dict[str, float] | None = None,
    *,
    n: int = 10_000,
    scales: list[float] = SCALES,
    rng: np.random.Generator | None = None,
) -> Iterator[Score]:
    """The published values, shifted by metric; with rng, with the sampling noise of a run of n images."""
    for point in CURVES.to_dict("records"):
        if point["checkpoint"] not in names or point["guidance_scale"] not in scales:
            continue
        for metric, at_10k in STDERR.items():
            stderr = at_10k * np.sqrt(10_000 / n)
            noise = rng.normal(0, stderr) if rng else 0.0
            yield Score(
                checkpoint=point["checkpoint"],
                guidance_scale=point["guidance_scale"],
                metric=metric,
                value=point[metric] + (shift or {}).get(metric, 0.0) + noise,
                stderr=stderr,
                n=n,
                direction=METRICS[metric].direction,
                unit=METRICS[metric].unit,
                protocol="model_card@01234567",
            )


def write(folder: Path, info: RunInfo, rows: Iterator[Score]) -> Path:
    store = RunFolder(folder)
    store.write_info(info)
    store.write_text("results.csv", results_frame(rows).to_csv(index=False))
    return folder


def half_width(points: pd.DataFrame, metric: str) -> float:
    return float(points.loc[points["metric"] == metric, "band"].iloc[0])


# Bands


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


def changed(**config: Any) -> RunInfo:
    info = record([BASE])
    return dataclasses.replace(info, config=info.config | config)


def protocol(**values: Any) -> RunInfo:
    return changed(protocol=record([BASE]).config["protocol"] | values)


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


def mini(tmp_path: Path) -> Path:
    info = protocol(name="mini", metrics=["fd_mini", "kid_mini", "clip_mini"], resolution=64)
    names = {"fid": "fd_mini", "clip_score": "clip_mini"}
    rows = (dataclasses.replace(row, metric=names[row.metric], n=64) for row in scores([BASE]))
    return write(tmp_path / "mini", info, rows)


def test_a_mini_run_is_told_what_to_run_instead(tmp_path: Path) -> None:
    result = sd2eval.reproduce_run(mini(tmp_path))
    assert result.verdict == "not comparable"
    assert "sweep experiment=model_card" in result.sentence
    assert set(result.points["reason"]) == {
        "mini (fd_mini is not FID)",
        "mini (clip_mini is not the CLIP score)",
    }


# By simulation: what the level promises


def judged(shift: float, seed: int) -> bool:
    """Whether a repeated study, shifted in FID, passes against a card that had sampling noise of its own."""
    rng = np.random.default_rng(seed)
    points = CURVES.melt(["checkpoint", "label", "guidance_scale"], ["fid", "clip_score"], "metric", "truth")
    points["stderr"] = points["metric"].map(STDERR)
    common = rng.normal(size=(2, 2))  # the points of one study share their captions
    share = 0.8
    for study, column in enumerate(("published", "measured")):
        noise = rng.normal(size=len(points))
        shared = np.where(points["metric"] == "fid", common[study, 0], common[study, 1])
        drawn = np.sqrt(share) * shared + np.sqrt(1 - share) * noise
        points[column] = points["truth"] + points["stderr"] * drawn
    read = rng.uniform(-1, 1, len(points)) * points["metric"].map(card.READING_ERROR)
    points["published"] += read
    points["measured"] += shift * (points["metric"] == "fid")
    points = points.assign(n=10_000, reason="")
    verdicts = reproduce.judge(points, {"fid": 0.0, "clip_score": 0.0})["verdict"]
    return bool((verdicts == "reproduced").all())


def test_a_true_reproduction_passes_as_often_as_promised() -> None:
    passed = sum(judged(0.0, seed) for seed in range(400))
    assert passed >= 0.95 * 400


def test_a_shift_of_two_fid_is_found() -> None:
    assert not any(judged(shift, seed) for seed in range(50) for shift in (-2.0, 2.0))


# The verb


def shown(result: reproduce.Reproduction, width: int = 80) -> str:
    stream = io.StringIO()
    reproduce_table.show(result, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


def call(words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    monkeypatch.setattr("sys.argv", [])
    try:
        code: Any = main(shlex.split(words))
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (5.0, 1)])
def test_the_exit_code_is_the_verdict_and_the_sentence_comes_first(
    tmp_path: Path,
    shift: float,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE], {"fid": shift}))
    ended, out = call(f"reproduce {run}", capsys, monkeypatch)
    assert ended == code
    assert out.startswith("Differs: 8 of 16" if shift else "Reproduced: all 16")


def test_a_mini_run_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, out = call(f"reproduce {mini(tmp_path)}", capsys, monkeypatch)
    assert ended == 1
    assert "mini (fd_mini is not FID)" in out


def test_json_holds_everything_and_no_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE]))
    _, out = call(f"reproduce {run} json=true protocol_spread.fid=1.5", capsys, monkeypatch)
    data = json.loads(out, parse_constant=pytest.fail)
    assert data["verdict"] == "reproduced"
    assert data["protocol_spread"] == {"fid": 1.5, "clip_score": 0.0}
    assert len(data["points"]) == 48
    assert sum(point["band"] is None for point in data["points"]) == 32


def test_the_points_are_written_over_an_older_table_but_over_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", record([BASE]), scores([BASE]))
    out = tmp_path / "points.csv"
    for _ in range(2):
        assert call(f"reproduce {run} out={out}", capsys, monkeypatch)[0] == 0
    table = pd.read_csv(out, keep_default_na=False, na_values=[""])
    assert len(table) == 48
    assert table["sampling"].notna().sum() == 16
    before = (run / "results.csv").read_bytes()
    assert call(f"reproduce {run} out={run / 'results.csv'}", capsys, monkeypatch)[0] == 2
    assert (run / "results.csv").read_bytes() == before


def test_everything_fits_into_80_columns(tmp_path: Path) -> None:
    rows = scores([BASE, V, OLD], {"fid": -12.0, "clip_score": 0.05})
    text = shown(sd2eval.reproduce_run(write(tmp_path, record([BASE, V, OLD]), rows)))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("differs -") == 24
    assert text.count("differs +") == 25  # and the legend
    assert "Left out of the bands" in text
    filled = sd2eval.reproduce_run(tmp_path, protocol_spread={"fid": 20.0, "clip_score": 0.1})
    assert "Left out of the bands" not in shown(filled)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("reproduce", "usage"),
        ("reproduce a b", "usage"),
        ("reproduce nowhere", "no run here"),
        ("reproduce RUN protocol_spread.fid=-1", "protocol_spread.fid=-1"),
        ("reproduce RUN protocol_spread.fid=nan", "protocol_spread.fid=nan"),
        ("reproduce RUN protocol_spread.clip_score=x", "a number is needed"),
        ("reproduce RUN protocol_spread.kid=1", "no such key"),
        ("reproduce RUN level=95", "level=95"),
        ("reproduce RUN json=yes", "true or false"),
        ("reproduce RUN out=", "a value is needed"),
        ("reproduce RUN out=RUN", "RUN: cannot be"),
    ],
)
def test_a_mistake_is_one_line_and_ends_with_2(
    words: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "RUN", record([BASE]), scores([BASE]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    with pytest.raises(SystemExit) as end:
        main(shlex.split(words))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_from_python_a_mistake_is_an_input_error(tmp_path: Path) -> None:
    run = write(tmp_path, record([BASE]), scores([BASE]))
    with pytest.raises(InputError, match=r"protocol_spread\.kid"):
        sd2eval.reproduce_run(run, protocol_spread={"kid": 1.0})
