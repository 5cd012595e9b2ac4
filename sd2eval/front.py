"""The Pareto front of a run with its uncertainty: for each cell the probability of being on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from sd2eval.evaluate import Measured
from sd2eval.pareto import Chances, cells, front_probability, roles
from sd2eval.tables import results_frame

COLUMNS = ["checkpoint", "guidance_scale", "distance", "score", "front", "probability"]
"""Of `pareto.csv`: the cell, the names of the two metrics, whether it is on the front, and how likely."""


def front_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """Return one row per cell that has a distance and a score, in the order of `cells`.

    Args:
        measured: of one run, so that all cells have the same captions.

    Returns:
        Columns `COLUMNS`; no rows where the run has no distance or no score.
    """
    results = results_frame(one.score for one in measured)
    chosen = roles(results)
    if not {"distance", "score"} <= chosen.keys():
        return pd.DataFrame(columns=COLUMNS)
    metrics = [chosen["distance"], chosen["score"]]
    table = cells(results).dropna(subset=["distance", "score"])
    names = [metric.name for metric in metrics]
    effects = _effects(measured, zip(table["checkpoint"], table["guidance_scale"], strict=True), names)
    table["probability"] = front_probability(
        table[["distance", "score"]].to_numpy(),
        [metric.direction for metric in metrics],
        effects,
        measured[0].groups,
    )
    table["distance"], table["score"] = names
    return table[COLUMNS].reset_index(drop=True)


def _effects(
    measured: Sequence[Measured], wanted: Iterable[tuple[str, float]], metrics: Sequence[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the effects of each wanted cell's metrics, shape [cells, metrics, n]."""
    known = {(one.score.checkpoint, one.score.guidance_scale, one.score.metric): one for one in measured}
    return np.array([[known[*cell, metric].effects for metric in metrics] for cell in wanted])


def chances(table: pd.DataFrame) -> Chances:
    """Return (checkpoint, guidance scale) to the probability of being on the front, from `front_table`."""
    pairs = zip(table["checkpoint"], table["guidance_scale"], strict=True)
    return dict(zip(pairs, table["probability"], strict=True))
