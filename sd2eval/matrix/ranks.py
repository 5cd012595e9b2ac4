"""Whether another protocol puts the cells of a run in another order, which is what a reader wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sd2eval.plan import Cell

CLEAR = 1.96
"""Standard errors of a difference from which two cells count as apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How one protocol orders the cells, against the first one."""

    protocol: str
    best: str
    """Cell with the best value, as in sentences."""
    checkpoints: list[str]
    """Best first, by the mean over their guidance scales."""
    tau: float
    """Kendall's tau-a of the cells with the first protocol's order; 1 where there is one cell."""
    swapped: int
    """Pairs of cells in the other order."""
    clearly: int
    """Of these, the ones that lie apart under both protocols by more than their errors explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The order of the cells under every protocol."""

    pairs: int
    """Of cells."""
    orders: list[Order]
    """By protocol, the first one first."""

    @property
    def sentence(self) -> str:
        """Does any protocol change who is better?"""
        return _sentence(self)


def rank(
    cells: Sequence[Cell],
    values: Mapping[str, NDArray[np.float64]],
    stderrs: Mapping[str, NDArray[np.float64]],
    *,
    lower_is_better: bool = True,
) -> Ranks:
    """Order the cells under every protocol.

    Two cells of a run share their captions, so their errors are positively dependent: the root of the summed
    squares that decides what is clear is too large rather than too small.

    Args:
        cells: K of them.
        values: by protocol, [K]; the first one is what the others are compared with.
        stderrs: likewise.
        lower_is_better: of the metric.
    """
    names = list(values)
    sign = 1 if lower_is_better else -1
    signed = {name: sign * array for name, array in values.items()}
    orders = [_order(cells, name, signed, stderrs, names[0]) for name in names]
    return Ranks(pairs=len(cells) * (len(cells) - 1) // 2, orders=orders)


def _order(
    cells: Sequence[Cell],
    name: str,
    values: Mapping[str, NDArray[np.float64]],
    stderrs: Mapping[str, NDArray[np.float64]],
    first: str,
) -> Order:
    upper = np.triu_indices(len(cells), 1)
    here, there = (np.subtract.outer(values[key], values[key])[upper] for key in (name, first))
    errors = [np.hypot.outer(stderrs[key], stderrs[key])[upper] for key in (name, first)]
    apart = (np.abs(here) > CLEAR * errors[0]) & (np.abs(there) > CLEAR * errors[1])
    agreement = np.sign(here) * np.sign(there)
    best = cells[int(values[name].argmin())]
    return Order(
        protocol=name,
        best=f"{best.checkpoint} at {best.guidance_scale:g}",
        checkpoints=_by_mean(cells, values[name]),
        tau=float(agreement.mean()) if len(agreement) else 1.0,
        swapped=int((agreement < 0).sum()),
        clearly=int(((agreement < 0) & apart).sum()),
    )


def _by_mean(cells: Sequence[Cell], values: NDArray[np.float64]) -> list[str]:
    by_name: dict[str, list[float]] = {}
    for cell, value in zip(cells, values, strict=True):
        by_name.setdefault(cell.checkpoint, []).append(float(value))
    return sorted(by_name, key=lambda name: sum(by_name[name]) / len(by_name[name]))


def _sentence(ranks: Ranks) -> str:
    others = ranks.orders[1:]
    if not others or not ranks.pairs:
        return ""
    worst = min(others, key=lambda order: order.tau)
    if not any(order.swapped for order in others):
        cells = f"Ranks: every protocol orders all {ranks.pairs} pairs of cells alike"
    else:
        clear = worst.clearly or "none"
        cells = (
            f"Ranks: {worst.protocol} swaps {worst.swapped} of {ranks.pairs} pairs of cells, {clear} of them "
            f"clearly apart (Kendall's tau {worst.tau:.2f}, the lowest)"
        )
    return f"{cells}; {_best(ranks)}{_checkpoints(ranks)}."


def _best(ranks: Ranks) -> str:
    first, *others = ranks.orders
    elsewhere = {order.best: order.protocol for order in reversed(others) if order.best != first.best}
    if not elsewhere:
        return f"the best cell is {first.best} under every one"
    return f"the best cell is {first.best} under {first.protocol}, " + ", ".join(
        f"{best} under {protocol}" for best, protocol in elsewhere.items()
    )


def _checkpoints(ranks: Ranks) -> str:
    first, *others = ranks.orders
    if len(first.checkpoints) < 2:
        return ""
    changed = [order.protocol for order in others if order.checkpoints != first.checkpoints]
    if not changed:
        return f"; by their means the checkpoints are always {' < '.join(first.checkpoints)} (best first)"
    other = next(order for order in others if order.protocol == changed[0])
    return (
        f"; by their means the checkpoints are {' < '.join(first.checkpoints)} (best first) under "
        f"{first.protocol}, {' < '.join(other.checkpoints)} under {other.protocol}"
    )
