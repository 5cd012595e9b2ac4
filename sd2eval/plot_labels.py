"""Writes the guidance scales beside the points so that they cover neither each other nor the curves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from sd2eval.plot_curves import Style

Array = NDArray[np.float64]

_ANGLES = np.deg2rad(np.arange(0, 360, 15))
_RINGS = (1.0, 1.8, 3.0)  # distance of a label's edge to its point, in units of the nearest
_PASSES = 3  # later passes move a label away from labels that were placed after it
_FONT = 7.5  # typographic points
_NEAR = 6.0  # the same: clear of the largest marker


def label_points(axes: Axes, curves: pd.DataFrame, look: Mapping[str, Style], dpi: float) -> None:
    """Write each point's guidance scale beside it, with a hair line where it had to move away.

    Args:
        axes: with final limits and layout; everything drawn in it is kept clear of labels.
        curves: columns of `cells`; points outside the axes get no label.
        look: style of each checkpoint.
        dpi: of the figure.
    """
    corner, extent = axes.bbox.p0, np.array([axes.bbox.width, axes.bbox.height])
    pixels = axes.transData.transform(curves[["score", "distance"]].to_numpy(np.float64)) - corner
    inside = ((pixels >= 0) & (pixels <= extent)).all(axis=1)
    points, curves = pixels[inside], curves[inside]
    if len(points) == 0:
        return
    pixel = dpi / 72  # per typographic point
    texts = [f"{scale:g}" for scale in curves["guidance_scale"]]
    sizes = np.array([[0.62 * len(text), 1.0] for text in texts]) * _FONT * pixel
    obstacles, weights = _traces(axes)
    centres = place(points, sizes, obstacles - corner, weights, extent, _NEAR * pixel)
    halo = [Stroke(linewidth=1.8, foreground="white", alpha=0.8), Normal()]
    for text, point, centre, name in zip(texts, points, centres, curves["checkpoint"], strict=True):
        colour = tuple(0.7 * part for part in to_rgb(look[name].colour))  # small text needs more contrast
        moved = np.linalg.norm(centre - point) > 3 * _NEAR * pixel
        hair = {"arrowstyle": "-", "linewidth": 0.5, "color": colour, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            text,
            xy=tuple(axes.transData.inverted().transform(point + corner)),
            xytext=tuple((centre - point) / pixel),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_FONT,
            color=colour,
            path_effects=halo,
            arrowprops=hair if moved else None,
            zorder=6,
        )


def _traces(axes: Axes) -> tuple[Array, Array]:
    """Return samples along curves and error bars in pixels [m, 2], and what covering one costs [m]."""
    joined = [line for line in axes.lines if line.get_linestyle() != "None"]
    paths = [(axes.transData.transform(line.get_xydata()), 4.0) for line in joined]
    groups = [group for group in axes.collections if isinstance(group, LineCollection)]
    bars = [bar for group in groups for bar in group.get_segments()]
    paths += [(axes.transData.transform(bar), 0.5) for bar in bars]
    samples, weights = [], []
    for path, weight in paths:
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        at = np.arange(0, along[-1] + 2, 2.0)
        samples.append(np.stack([np.interp(at, along, path[:, axis]) for axis in (0, 1)], axis=1))
        weights.append(np.full(len(at), weight))
    return np.concatenate(samples), np.concatenate(weights)


def place(points: Array, sizes: Array, obstacles: Array, weights: Array, extent: Array, near: float) -> Array:
    """Return the centre of each label.

    Each label takes the cheapest of 72 positions around its point, given where the others are: covering
    another label costs most, then leaving the axes, then each covered piece of a curve, being nearer to
    another point than to its own, and the distance.

    Args:
        points: shape [n, 2], what is labelled, in pixels from the lower left corner of the axes.
        sizes: shape [n, 2], width and height of each label.
        obstacles: shape [m, 2], samples along everything drawn.
        weights: shape [m], cost of covering each.
        extent: shape [2], width and height of the axes.
        near: smallest distance of a label's edge to its point.

    Returns:
        Shape [n, 2], pixels.
    """
    centres = np.full(points.shape, np.inf)
    options = [_around(point, size, near) for point, size in zip(points, sizes, strict=True)]
    reach = sizes.max() + max(_RINGS) * near  # nothing farther from a point can be covered by its label
    close = [(np.abs(obstacles - point) < reach).all(axis=1) for point in points]
    fixed = [
        _covered(where, sizes[i], obstacles[close[i]], weights[close[i]])
        + 50.0 * _outside(where, sizes[i], extent)
        + np.linalg.norm(where - points[i], axis=1) / near
        + 6.0 * _misleading(where, points[i], np.delete(points, i, axis=0), near)
        for i, where in enumerate(options)
    ]
    for _ in range(_PASSES):
        for i, where in enumerate(options):
            clashes = _clashes(where, sizes[i], np.delete(centres, i, axis=0), np.delete(sizes, i, axis=0))
            centres[i] = where[np.argmin(fixed[i] + 100.0 * clashes)]
    return centres


def _around(point: Array, size: Array, near: float) -> Array:
    """Return label centres on rings around a point; the label's edge, not its centre, keeps the distance."""
    rays = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    return np.concatenate([point + rays * (size / 2 + near * stretch) for stretch in _RINGS])


def _covered(where: Array, size: Array, obstacles: Array, weights: Array) -> Array:
    covered: Array = (np.abs(where[:, None] - obstacles[None]) < size / 2 + 1).all(axis=2) @ weights
    return covered


def _outside(where: Array, size: Array, extent: Array) -> NDArray[np.bool_]:
    return np.asarray(((where < size / 2) | (where > extent - size / 2)).any(axis=1))


def _clashes(where: Array, size: Array, centres: Array, sizes: Array) -> Array:
    overlap = (np.abs(where[:, None] - centres[None]) < (size + sizes) / 2 + 1).all(axis=2)
    return np.asarray(overlap.sum(axis=1), dtype=np.float64)


def _misleading(where: Array, point: Array, strangers: Array, near: float) -> Array:
    """Return how much nearer each position is to another point than to its own, in units of `near`."""
    if len(strangers) == 0:
        return np.zeros(len(where))
    own = np.linalg.norm(where - point, axis=1)
    other = np.linalg.norm(where[:, None] - strangers[None], axis=2).min(axis=1)
    return np.asarray(np.clip((own - other) / near + 0.5, 0, None))
