"""Run folders written by hand, with scores at known distances from the card's figure."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from sd2eval import run_tables
from sd2eval.coco import FILES
from sd2eval.metrics import METRICS
from sd2eval.records import SCHEMA_VERSION, RunInfo, Score
from sd2eval.reproduction import card, reproduce
from sd2eval.reproduction import table as reproduce_table
from sd2eval.store import RunFolder, write_bytes
from sd2eval.tables import results_frame
from sd2eval.weights.published import published

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
    run_tables.close(
        store, [write_bytes(folder / "results.csv", results_frame(rows).to_csv(index=False).encode())]
    )
    return folder


def half_width(points: pd.DataFrame, metric: str) -> float:
    return float(points.loc[points["metric"] == metric, "band"].iloc[0])


# Bands


def changed(**config: Any) -> RunInfo:
    info = record([BASE])
    return dataclasses.replace(info, config=info.config | config)


def protocol(**values: Any) -> RunInfo:
    return changed(protocol=record([BASE]).config["protocol"] | values)


def shown(result: reproduce.Reproduction, width: int = 80) -> str:
    stream = io.StringIO()
    reproduce_table.show(result, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()
