"""Why a cell of a run may not be compared with a point of the model card's figure; empty when it may."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pandas as pd

from sd2eval.coco import FILES
from sd2eval.metrics import METRICS
from sd2eval.records import RunInfo
from sd2eval.reproduction import card
from sd2eval.weights.published import published

_INVALID = 0.01
"""Share of a cell's images that may be invalid: FID's bias, a few points and about proportional to 1/n, then
moves by less than the figure can be read."""
_NUMBERS = ("value", "stderr", "n")


class Found(NamedTuple):
    """A cell's number, or why it cannot be compared with the published one."""

    value: float
    stderr: float
    n: int
    reasons: list[str]


def find(info: RunInfo, results: pd.DataFrame, checkpoint: str, scale: float, metric: str) -> Found:
    """Return what a run has to say about one published point.

    Args:
        info: of the run.
        results: columns of `Score`.
        checkpoint: one of the card's.
        scale: guidance scale.
        metric: `fid` or `clip_score`.
    """
    mini = _mini(info, metric)
    if mini:
        return _nothing([mini])
    name, reasons = _checkpoint(info, checkpoint)
    if name is None:
        return _nothing(reasons)
    reasons += [*_sampling_faults(info), *_metric_faults(info, metric)]
    if scale not in info.config["guidance_scales"]:
        return _nothing([*reasons, "scale not swept"])
    rows = results[
        (results["checkpoint"] == name) & (results["guidance_scale"] == scale) & (results["metric"] == metric)
    ]
    if rows.empty:
        measured = metric in info.config["protocol"]["metrics"]
        return _nothing([*reasons, "incomplete cell"] if measured else reasons)
    value, stderr, n = (float(rows[column].iloc[0]) for column in _NUMBERS)
    return Found(value, stderr, int(n), [*reasons, *_number_faults(metric, value, stderr, int(n))])


def _nothing(reasons: list[str]) -> Found:
    return Found(math.nan, math.nan, 0, reasons)


def _mini(info: RunInfo, metric: str) -> str:
    """Return what the run has in the place of a metric, if that is a mini one."""
    names = info.config["protocol"]["metrics"]
    if metric in names:
        return ""
    known = (METRICS[name] for name in names if name in METRICS)
    found = [other.name for other in known if other.mini and other.kind == METRICS[metric].kind]
    label = METRICS[metric].label
    return f"mini ({found[0]} is {'not FID' if metric == 'fid' else f'not the {label}'})" if found else ""


def _checkpoint(info: RunInfo, name: str) -> tuple[str | None, list[str]]:
    """Return the run's checkpoint that has the published weights, whatever its name, and what is wrong."""
    definitions: dict[str, Any] = info.config["checkpoint_definitions"]
    expected = str(published()[name].sha256)
    same = [own for own in definitions if info.digests.get(f"weights/{own}") == expected]
    if not same:
        if name not in definitions:
            return None, ["not in the run"]
        own = info.digests.get(f"weights/{name}", "unknown")
        return name, [f"other weights (SHA-256 {own[:8]}, published {expected[:8]})"]
    chosen = name if name in same else same[0]
    return chosen, _definition_faults(definitions[chosen], name)


def _definition_faults(definition: dict[str, Any], name: str) -> list[str]:
    facts = published()[name]
    sizes = sorted({card.RESOLUTION, facts.resolution or card.RESOLUTION})
    text = "clip" if facts.version == "1.5" else "open_clip"
    allowed: dict[str, tuple[Any, ...]] = {
        "conditioning": ("text",),
        "prediction_type": (facts.prediction_type,),
        "text": (text,),
        "resolution": tuple(sizes),  # the figure's 768-v was either drawn at 512 pixels or resized
        "beta_start": (card.BETAS[0],),
        "beta_end": (card.BETAS[1],),
    }
    return [
        f"other {key} ({definition.get(key)}, the card's {' or '.join(map(str, values))})"
        for key, values in allowed.items()
        if definition.get(key) not in values
    ]


def _sampling_faults(info: RunInfo) -> list[str]:
    config, faults = info.config, []
    sampler = config["sampler"]
    if sampler["steps"] != card.STEPS:
        faults.append(f"other steps ({sampler['steps']}, the card's {card.STEPS})")
    if sampler["eta"] != card.ETA:
        faults.append(f"other eta ({sampler['eta']:g}, the card's {card.ETA:g})")
    if config["protocol"]["resolution"] != card.RESOLUTION:
        faults.append(f"other resolution ({config['protocol']['resolution']}, the card's {card.RESOLUTION})")
    if info.digests.get("data/captions") != FILES["annotations/captions_val2017.json"]:
        faults.append("other prompts (not the captions of COCO 2017 validation)")
    return faults


def _metric_faults(info: RunInfo, metric: str) -> list[str]:
    protocol = info.config["protocol"]
    if metric not in protocol["metrics"]:
        return [f"{metric} not measured"]
    if metric == "fid":
        if info.reference_n != card.REFERENCE_IMAGES:
            return [f"other reference ({info.reference_n:,} images, COCO 2017 has {card.REFERENCE_IMAGES:,})"]
        kind = protocol["distance"]["kind"]
        return [] if kind == "inception" else [f"other extractor ({kind}, the card's Inception-v3)"]
    used = (protocol["score"]["model"], protocol["score"]["pretrained"])
    if used == (card.CLIP_MODEL, card.CLIP_WEIGHTS):
        return []
    return [f"other extractor ({' '.join(map(str, used))}, the card's {card.CLIP_MODEL} {card.CLIP_WEIGHTS})"]


def _number_faults(metric: str, value: float, stderr: float, n: int) -> list[str]:
    if not (math.isfinite(value) and math.isfinite(stderr) and stderr > 0):
        return ["no standard error"]
    if metric == "fid" and not (1 - _INVALID) * card.IMAGES <= n <= card.IMAGES:
        return [f"other n ({n:,}, the card's {card.IMAGES:,})"]
    return []
