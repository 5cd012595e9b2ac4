"""A run against the model card's figure: a band around each published point, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd

from sd2eval.errors import InputError
from sd2eval.records import RunInfo
from sd2eval.report import load_run
from sd2eval.reproduction import card, comparable

Verdict = Literal["reproduced", "differs", "not comparable"]

PROTOCOL_SPREAD = {"fid": 0.0, "clip_score": 0.0}
"""How far a score moves between readings of what the card leaves open. 0: nobody has measured it for this
figure, so the bands leave it out, and the verdict says so."""


@dataclass(frozen=True, slots=True, eq=False)
class Reproduction:
    """The answer to "does this run reproduce the card's figure?"."""

    verdict: Verdict
    sentence: str
    """The answer with its main reason."""
    points: pd.DataFrame
    """One row per published point and metric; see `judge`. Two columns more: label, and reason (why not
    comparable, empty otherwise)."""
    level: float
    """Probability that all points of a true reproduction are within their bands."""
    factor: float
    """How many standard errors of the difference the bands allow, from `level` and the number compared."""
    protocol_spread: dict[str, float]

    @property
    def reproduced(self) -> bool:
        """Whether the verdict is that."""
        return self.verdict == "reproduced"


def reproduce_run(
    path: str | Path, *, protocol_spread: Mapping[str, float] | None = None, level: float = 0.95
) -> Reproduction:
    """Compare a run's cells with the 24 points of the model card's figure.

    A run reproduces it if every point of at least one published checkpoint was measured comparably, FID and
    CLIP score, and nothing that was compared lies outside its band.

    Args:
        path: the run folder.
        protocol_spread: by metric (`fid`, `clip_score`) and in its unit, how far the score moves between
            protocols that the card leaves open; added to the band on both sides. Default 0.
        level: probability that a true reproduction passes, over all points together (0..1).

    Raises:
        InputError: no run there, a metric that the card does not have, a negative spread, or no such level.
    """
    spread = PROTOCOL_SPREAD | dict(protocol_spread or {})
    _check(spread, level)
    run = load_run(path)
    points = judge(collect(run.info, run.results), spread, level)
    compared = int((points["verdict"] != "not comparable").sum())
    verdict, sentence = _overall(points, spread, level)
    return Reproduction(verdict, sentence, points, level, critical(level, compared), spread)


def _check(spread: Mapping[str, float], level: float) -> None:
    unknown = sorted(spread.keys() - PROTOCOL_SPREAD.keys())
    if unknown:
        raise InputError(f"protocol_spread.{unknown[0]}: the card has only {', '.join(PROTOCOL_SPREAD)}")
    for metric, value in spread.items():
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"protocol_spread.{metric}={value:g}: allowed: 0 or above")
    if not 0 < level < 1:
        raise InputError(f"level={level:g}: allowed: above 0, below 1, such as 0.95")


def collect(info: RunInfo, results: pd.DataFrame) -> pd.DataFrame:
    """Return one row per published point and metric with what the run measured there.

    Args:
        info: of the run.
        results: columns of `Score`.

    Returns:
        Columns checkpoint, label, guidance_scale, metric, published, measured and stderr (NaN where there is
        nothing), n, and reason (why it cannot be compared; empty where it can).
    """
    curves = card.published_curves()
    rows: list[dict[str, Any]] = []
    for metric in card.READING_ERROR:
        for point in curves.to_dict("records"):
            name, scale = str(point["checkpoint"]), float(point["guidance_scale"])
            found = comparable.find(info, results, name, scale, metric)
            rows.append(
                {
                    "checkpoint": name,
                    "label": point["label"],
                    "guidance_scale": scale,
                    "metric": metric,
                    "published": point[metric],
                    "measured": found.value,
                    "stderr": found.stderr,
                    "n": found.n,
                    "reason": "; ".join(found.reasons),
                }
            )
    return pd.DataFrame(rows)


def judge(points: pd.DataFrame, spread: Mapping[str, float], level: float = 0.95) -> pd.DataFrame:
    """Return the points with their bands and verdicts.

    The band of a point is published -+ (sampling + reading + protocol_spread). Sampling is `critical` times
    the root of the squared standard errors of run and card; the card's own is not published, so it is the
    run's, scaled to 10,000 images. The other two are no random draws and are added whole.

    Args:
        points: columns of `collect`.
        spread: half-width by metric.
        level: of all comparisons together.

    Returns:
        The columns of `collect` and difference, stderr_card, sampling, reading, protocol_spread, band
        (half-width), low, high, bands (difference in half-widths, signed) and verdict.
    """
    judged = points.copy()
    can = judged["reason"] == ""
    z = critical(level, int(can.sum()))
    judged["difference"] = judged["measured"] - judged["published"]
    judged["stderr_card"] = judged["stderr"] * np.sqrt(judged["n"] / card.IMAGES)
    judged["sampling"] = z * np.hypot(judged["stderr"], judged["stderr_card"])
    judged["reading"] = judged["metric"].map(card.READING_ERROR)
    judged["protocol_spread"] = judged["metric"].map(dict(spread))
    judged["band"] = judged["sampling"] + judged["reading"] + judged["protocol_spread"]
    judged.loc[~can, ["sampling", "band"]] = np.nan
    judged["low"] = judged["published"] - judged["band"]
    judged["high"] = judged["published"] + judged["band"]
    judged["bands"] = judged["difference"] / judged["band"]
    inside = np.where(judged["bands"].abs() <= 1, "reproduced", "differs")
    judged["verdict"] = np.where(can, inside, "not comparable")
    return judged


def critical(level: float, comparisons: int) -> float:
    """Return how many standard errors two-sided bands need to hold all together with probability `level`.

    Sidak (1967): for normal errors of any correlation, the points of one run share their captions, k bands of
    confidence level^(1/k) hold together with at least `level`.
    """
    return NormalDist().inv_cdf((1 + level ** (1 / max(comparisons, 1))) / 2)


def whole_checkpoints(points: pd.DataFrame) -> list[str]:
    """Return the published checkpoints of which every point was compared, in both metrics."""
    whole = (points["verdict"] != "not comparable").groupby(points["checkpoint"], sort=False).all()
    return [str(name) for name in whole.index[whole]]


def _overall(points: pd.DataFrame, spread: Mapping[str, float], level: float) -> tuple[Verdict, str]:
    compared = points[points["verdict"] != "not comparable"]
    outside = compared[compared["verdict"] == "differs"]
    whole = whole_checkpoints(points)
    without = "" if any(spread.values()) else ", the protocol spread left out"
    if compared.empty:
        return "not comparable", _nothing_to_compare(points)
    if len(outside):
        worst = outside.iloc[int(outside["bands"].abs().to_numpy().argmax())]
        return "differs", (
            f"Differs: {len(outside)} of {len(compared)} comparisons with the card's figure lie outside "
            f"their bands, farthest {_words(worst)}{without}."
        )
    if not whole:
        return "not comparable", (
            f"Not comparable as a whole: the {len(compared)} comparisons that can be made agree with the "
            "card's figure, but no published checkpoint has all its 8 points in both metrics."
        )
    return "reproduced", (
        f"Reproduced: all {len(compared)} comparisons with the card's figure lie within their bands, with "
        f"every point of {' and '.join(whole)}, at {100 * level:g}% for all together{without}."
    )


def _words(point: pd.Series[Any]) -> str:
    name = {"fid": "FID", "clip_score": "CLIP score"}[point["metric"]]
    digits = 2 if point["metric"] == "fid" else 4
    side = "higher" if point["difference"] > 0 else "lower"
    return (
        f"the {name} of {point['checkpoint']} at scale {point['guidance_scale']:g}, "
        f"{abs(point['difference']):.{digits}f} {side} ({abs(point['bands']):.1f} times its band)"
    )


def _nothing_to_compare(points: pd.DataFrame) -> str:
    reasons = points["reason"]
    if reasons.str.startswith("mini").all():
        return (
            "Not comparable: this is a run of the mini world, and the card's figure can only be compared "
            "with real checkpoints, which `python -m sd2eval sweep experiment=model_card` measures."
        )
    usual = reasons.value_counts().index[0]
    return f"Not comparable: no point of the card's figure can be compared with this run ({usual})."


def record(result: Reproduction) -> dict[str, Any]:
    """Return a reproduction as plain data, ready for JSON; what is not a number is null."""
    points = result.points.astype(object).where(result.points.notna(), None)
    return {
        "verdict": result.verdict,
        "sentence": result.sentence,
        "whole_checkpoints": whole_checkpoints(result.points),
        "level": result.level,
        "factor": result.factor,
        "protocol_spread": result.protocol_spread,
        "points": points.to_dict("records"),
    }
