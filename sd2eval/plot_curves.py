"""Draws measured and published curves, and decides which of them need a panel of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from numpy.typing import NDArray

INK = "#222222"
PALE = "#999999"

# Okabe and Ito's colours, yellow left out (invisible on white). Marker and line style change with the colour,
# so that the curves stay apart in black-and-white print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), "-.", (0, (1, 1.2)), (0, (6, 2, 1, 2, 1, 2)), (0, (3, 1)))

_SHRINK = 0.4  # a curve is an outlier when the axes without it are shorter than this fraction
_CROWDED = 8.0  # typographic points between neighbours of one curve: less than a marker


@dataclass(frozen=True, slots=True)
class Style:
    """How a checkpoint's curve looks everywhere in the figure."""

    colour: str
    marker: str
    line: Any


class Limits(NamedTuple):
    """Lower left and upper right corner in data coordinates, shape [2] each."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def apply(self, axes: Axes) -> None:
        """Set the axes' limits."""
        axes.set_xlim(self.low[0], self.high[0])
        axes.set_ylim(self.low[1], self.high[1])


def styles(checkpoints: Iterable[str]) -> dict[str, Style]:
    """Return a style for each checkpoint; seven differ in colour and marker, 42 in the combination."""
    return {
        name: Style(_COLOURS[i % 7], _MARKERS[i % 7], _LINES[i % 6]) for i, name in enumerate(checkpoints)
    }


def limits(
    curves: pd.DataFrame, margin: float, published: pd.DataFrame | None = None, *, with_bars: bool = True
) -> Limits:
    """Return limits around points (columns of `cells`), their error bars and the published points.

    Args:
        curves: columns of `cells`.
        margin: fraction of the range added on each side.
        published: columns of `published_curves`.
        with_bars: False when the view is about the points alone.
    """
    values = curves[["score", "distance"]].to_numpy(np.float64)
    reach = np.nan_to_num(curves[["score_stderr", "distance_stderr"]].to_numpy(np.float64)) * with_bars
    ends = [values - reach, values + reach]
    if published is not None:
        ends.append(published[["clip_score", "fid"]].to_numpy(np.float64))
    low, high = np.concatenate(ends).min(axis=0), np.concatenate(ends).max(axis=0)
    # a single point without bars needs room too
    lonely = np.where(high > low, 0.0, 1e-3 * np.maximum(np.abs(low), 1e-9))
    pad = margin * (high - low) + lonely
    return Limits(low - pad, high + pad)


def outliers(curves: pd.DataFrame) -> list[str]:
    """Return the checkpoints so far away that they would squeeze the others together; at least two stay."""
    kept = list(curves["checkpoint"].unique())
    away: list[str] = []
    while len(kept) > 2:
        extent = _extent(curves, kept)
        without = {name: _extent(curves, [k for k in kept if k != name]) / extent for name in kept}
        worst = min(without, key=lambda name: float(without[name].min()))
        if without[worst].min() >= _SHRINK:
            break
        kept.remove(worst)
        away.append(worst)
    return away


def crowded(curves: pd.DataFrame, view: Limits, size: tuple[float, float]) -> list[str]:
    """Return the checkpoints whose points nearly coincide where `view` fills `size` typographic points."""
    found = []
    scale = np.array(size) / (view.high - view.low)
    for name, curve in curves.groupby("checkpoint", sort=False):
        steps = np.diff(curve[["score", "distance"]].to_numpy(np.float64), axis=0) * scale
        if len(steps) and np.median(np.linalg.norm(steps, axis=1)) < _CROWDED:
            found.append(str(name))
    return found


def draw_published(axes: Axes, published: pd.DataFrame, look: Mapping[str, Style]) -> None:
    """Draw the published curves (columns of `published_curves`), pale, below the measured ones."""
    for line in published_handles(published, look):
        axes.add_line(line)


def published_handles(published: pd.DataFrame, look: Mapping[str, Style]) -> list[Line2D]:
    """Return the published curves as lines, each in the hue of its checkpoint's measured curve if any."""
    lines = []
    for name, curve in published.groupby("checkpoint", sort=False):
        ordered = curve.sort_values("guidance_scale")
        style = look.get(str(name), Style(PALE, "o", "-"))
        line = Line2D(ordered["clip_score"], ordered["fid"], color=style.colour, alpha=0.4, linewidth=1.2)
        line.set(linestyle=(0, (4, 3)), marker=style.marker, markersize=3, zorder=1)
        line.set_label(f"{ordered['label'].iloc[0]}, published")
        lines.append(line)
    return lines


def draw_curve(
    axes: Axes, curve: pd.DataFrame, style: Style, chances: Mapping[tuple[str, float], float]
) -> None:
    """Draw one checkpoint (columns of `cells`, ascending scale): bars, line, and points, ringed on the front.

    A point is filled as far as it is likely to be on the front; one without a chance, if it is.
    """
    x, y = curve["score"], curve["distance"]
    dx, dy = curve["score_stderr"].fillna(0), curve["distance_stderr"].fillna(0)
    axes.errorbar(x, y, dy, dx, fmt="none", ecolor=style.colour, elinewidth=0.7, alpha=0.4, zorder=2)
    axes.plot(x, y, color=style.colour, linestyle=style.line, linewidth=1.5, zorder=3)
    for point in curve.to_dict("records"):
        front = bool(point["front"])
        chance = chances.get((point["checkpoint"], point["guidance_scale"]), float(front))
        axes.plot(
            [point["score"]],
            [point["distance"]],
            linestyle="none",
            marker=style.marker,
            markersize=7 if front else 5.5,
            markerfacecolor=tint(style.colour, chance),
            markeredgecolor=INK if front else style.colour,
            markeredgewidth=1.2,
            zorder=5 if front else 4,
        )


def tint(colour: str, strength: float) -> Any:
    """Return a colour mixed with white: 0 is white, 1 the colour."""
    if strength <= 0:
        return "white"
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def chance_handles() -> tuple[Line2D, ...]:
    """Return what explains the filling in a legend: points surely off, perhaps on and surely on the front."""
    points = tuple(
        Line2D(
            [], [], linestyle="none", marker="o", mfc=tint(PALE, chance), mec=PALE, mew=1.2, markersize=5.5
        )
        for chance in (0.0, 0.5, 1.0)
    )
    points[0].set_label("fill: how likely")
    return points


def _extent(curves: pd.DataFrame, names: list[str]) -> NDArray[np.float64]:
    low, high = limits(curves[curves["checkpoint"].isin(names)], 0.0)
    return high - low
