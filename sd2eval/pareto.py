"""Dominance and the Pareto front, for any number of objectives; and a run's cells with their front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, Kind, Metric
from sd2eval.records import Direction

Array = NDArray[np.float64]

Chances = Mapping[tuple[str, float], float]
"""(checkpoint, guidance scale) to the probability of being on the Pareto front."""

ROLES: tuple[Kind, ...] = ("distance", "kernel", "score")


def dominates(a: ArrayLike, b: ArrayLike, directions: Sequence[Direction]) -> bool:
    """Return whether point a is at least as good as b in every objective and better in one.

    Args:
        a: shape [k], one value per objective.
        b: shape [k].
        directions: k times "higher" or "lower", whichever is better.

    Raises:
        InputError: another number of objectives than directions, or NaN.
    """
    first, second = _losses(np.stack([np.asarray(a), np.asarray(b)]), directions)
    return bool((first <= second).all() and (first < second).any())


def front(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Return for each point whether no other point dominates it.

    Equal points do not dominate each other: duplicates of a front point are all on the front.

    Args:
        points: shape [n, k].
        directions: k times "higher" or "lower", whichever is better.

    Returns:
        Shape [n], bool; at least one True when n > 0.

    Raises:
        InputError: wrong shape, unknown direction, or NaN (a missing value can neither win nor lose).
    """
    losses = _losses(points, directions)
    no_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    better = (losses[:, None, :] < losses[None, :, :]).any(axis=2)
    dominated: NDArray[np.bool_] = np.any(no_worse & better, axis=0)
    return ~dominated


def front_probability(
    points: ArrayLike,
    directions: Sequence[Direction],
    effects: ArrayLike,
    groups: ArrayLike,
    *,
    draws: int = 10_000,
) -> Array:
    """Return for each point how often it is on the front when the samples behind all points are drawn anew.

    To first order, drawing the same captions anew for every point moves all objectives together, as normal
    variables whose covariance is that of the summed effects of each image. So points that share their
    captions and noise move together, and what they share decides nothing. Nothing is recomputed, and a
    Frechet distance gets no bootstrap bias. Equal points stay equal. The draws are the same at every call.

    Args:
        points: shape [c, k], one value per objective.
        directions: k times "higher" or "lower", whichever is better.
        effects: shape [c, k, n], how much sample i moved each value (influence / n), 0 for one left out.
        groups: shape [n], labels; samples with the same label (captions of one image) are drawn together.
        draws: how often; the Monte Carlo error is at most 0.5 / sqrt(draws).

    Returns:
        Shape [c], 0..1.

    Raises:
        InputError: shapes that do not fit, fewer than 2 groups, or see `front`.
    """
    losses = _losses(points, directions)
    moved: Array = np.asarray(effects, dtype=np.float64)
    labels: NDArray[Any] = np.asarray(groups)
    if moved.shape != (*losses.shape, len(labels)):
        expected = [*losses.shape, len(labels)]
        raise InputError(f"expected effects of shape {expected}, got {list(moved.shape)}")
    if len(losses) == 0:
        return np.zeros(0)
    drawn = np.asarray(points, dtype=np.float64).ravel() + _normal(_group_sums(moved, labels), draws)
    signs = np.array([1.0 if d == "lower" else -1.0 for d in directions])
    return _share_on_front(drawn.reshape(draws, *losses.shape) * signs)


def _group_sums(moved: Array, labels: NDArray[Any]) -> Array:
    """Return the effects [c, k, n] as [c * k, groups], summed by group."""
    _, index = np.unique(labels, return_inverse=True)
    flat = moved.reshape(-1, moved.shape[-1])
    count = int(index.max()) + 1 if len(index) else 0
    if count < 2:
        raise InputError(f"a front's uncertainty needs at least 2 independent groups of samples, got {count}")
    return np.stack([np.bincount(index, weights=row, minlength=count) for row in flat])


def _normal(sums: Array, draws: int) -> Array:
    """Return centred normal draws [draws, v] with the covariance that sums [v, groups] estimate."""
    count = sums.shape[1]
    sizes = np.sqrt(count / (count - 1) * np.square(sums).sum(axis=1))
    scaled = sums / np.where(sizes > 0, sizes, 1.0)[:, None]
    variances, vectors = np.linalg.eigh(count / (count - 1) * scaled @ scaled.T)
    above_noise = variances > len(sums) * np.finfo(np.float64).eps * variances[-1]
    root = vectors[:, above_noise] * np.sqrt(variances[above_noise])
    moves = np.random.default_rng(0).standard_normal((draws, root.shape[1])) @ root.T
    drawn: Array = moves.round(9) * sizes  # rounded, so that round-off does not decide between equal points
    return drawn


def _share_on_front(losses: Array) -> Array:
    """Return for each of c points the share of draws [draws, c, k] in which no other dominates it."""
    share = np.empty(losses.shape[1])
    for i in range(len(share)):
        own = losses[:, i : i + 1]
        dominates: NDArray[np.bool_] = np.all(losses <= own, axis=2) & np.any(losses < own, axis=2)
        share[i] = 1 - np.count_nonzero(np.any(dominates, axis=1)) / len(losses)
    return share.round(12)


def _losses(points: ArrayLike, directions: Sequence[Direction]) -> Array:
    """Return the points as float64 [n, k] with every objective turned so that lower is better."""
    unknown = set(directions) - {"higher", "lower"}
    if unknown:
        raise InputError(f"a direction is 'higher' or 'lower', got {sorted(unknown)}")
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(0, len(directions))
    if array.ndim != 2 or array.shape[1] != len(directions):
        raise InputError(f"expected points of shape [n, {len(directions)}], got {list(array.shape)}")
    if np.isnan(array).any():
        raise InputError(f"{int(np.isnan(array).any(axis=1).sum())} of {len(array)} points contain NaN")
    losses: Array = array * np.array([1.0 if d == "lower" else -1.0 for d in directions])
    return losses


def roles(results: pd.DataFrame) -> dict[Kind, Metric]:
    """Return the metric that plays each role, the first of `METRICS` in `results`; unknown ones play none."""
    present = set(results["metric"])
    chosen: dict[Kind, Metric] = {}
    for metric in METRICS.values():
        if metric.name in present and metric.kind in ROLES:
            chosen.setdefault(metric.kind, metric)
    return chosen


UNEQUAL = 1.02
"""Ratio of two numbers of images from which on what they bias differently is pointed out."""


def biased(results: pd.DataFrame) -> list[str]:
    """Return a warning for each metric whose value depends on n where n differs between cells.

    Args:
        results: columns of `Score`.
    """
    warnings = []
    for name, rows in results.groupby("metric", sort=False):
        metric = METRICS.get(str(name))
        dependent = metric is not None and metric.claim.about == "expected value at this n"
        if dependent and metric is not None and rows["n"].max() > UNEQUAL * rows["n"].min():
            ns = f"{rows['n'].min():,} to {rows['n'].max():,}"
            limits = "not comparable between them, which best and front ignore"
            warnings.append(f"{metric.label} depends on n, which is {ns} here: {limits}.")
    return warnings


def cells(results: pd.DataFrame) -> pd.DataFrame:
    """Return a run's results as one row per cell, with the Pareto front of score and distance marked.

    Args:
        results: columns of `Score`, one row per cell and metric.

    Returns:
        Columns checkpoint, guidance_scale, n, `<role>` and `<role>_stderr` for the roles distance, kernel and
        score (NaN where missing), and front (bool; never for a cell without score or distance). Checkpoints
        keep the order of `results`, scales ascend.

    Raises:
        InputError: a cell has two values of one metric, as when two runs were concatenated.
    """
    keys = ["checkpoint", "guidance_scale"]
    twice = results.duplicated([*keys, "metric"])
    if twice.any():
        row = results[twice].iloc[0]
        raise InputError(
            f"two values of {row['metric']} for {row['checkpoint']} at guidance scale "
            f"{row['guidance_scale']:g}: give the results of one run"
        )
    wide = results.groupby(keys, sort=False, as_index=False).agg(n=("n", "min"))
    chosen = roles(results)
    for role in ROLES:
        rows = results[results["metric"] == chosen[role].name] if role in chosen else results.iloc[:0]
        values = rows[[*keys, "value", "stderr"]].rename(columns={"value": role, "stderr": f"{role}_stderr"})
        wide = wide.merge(values, on=keys, how="left")
    order = {name: rank for rank, name in enumerate(wide["checkpoint"].unique())}
    wide["order"] = wide["checkpoint"].map(order)
    wide = wide.sort_values(["order", "guidance_scale"]).drop(columns="order")
    complete = wide[["distance", "score"]].notna().all(axis=1)
    wide["front"] = False
    if complete.any():
        directions = [chosen["distance"].direction, chosen["score"].direction]
        wide.loc[complete, "front"] = front(wide.loc[complete, ["distance", "score"]].to_numpy(), directions)
    return wide.reset_index(drop=True)
