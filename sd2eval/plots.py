"""The model card's figure from a run's results: distance against score, one curve per checkpoint."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from sd2eval.errors import InputError
from sd2eval.floors import Floors
from sd2eval.pareto import Chances, biased, cells, roles
from sd2eval.plot_curves import (
    INK,
    PALE,
    Limits,
    Style,
    chance_handles,
    crowded,
    draw_curve,
    draw_published,
    limits,
    outliers,
    published_handles,
    styles,
)
from sd2eval.plot_labels import label_points
from sd2eval.reproduction.card import published_curves as published_curves
from sd2eval.store import write_bytes

Handle = Line2D | tuple[Line2D, ...]
"""An entry of the legend; a tuple is drawn side by side under the label of its first."""

_WARNING = "#B00020"
_MARGIN = 0.06  # of the range, around everything in a panel
_MAIN_POINTS = (440.0, 330.0)  # about the size of the main panel, in typographic points
_BETWEEN = "   |   "  # facts of the footer
_LINE = 145  # characters of the footer that fit
_SIDE_PANELS = 2  # what fits below the legend


@dataclass(frozen=True, slots=True)
class _Views:
    """Which part of the data each panel shows."""

    main: Limits
    overview: Limits | None
    """All curves, when some are too far away for the main panel."""
    zooms: dict[str, Limits]
    """Checkpoint to the surroundings of its points, labelled there instead of in the main panel."""


def pareto_figure(
    results: pd.DataFrame,
    *,
    published: pd.DataFrame | None = None,
    chances: Chances | None = None,
    planned: int | None = None,
    energy_note: str = "",
    title: str = "",
    floors: Floors | None = None,
) -> Figure:
    """Draw distance against score with one curve per checkpoint, joined in the order of the guidance scale.

    Front points are ringed, and points are filled as far as they are likely to be on the front (without
    `chances`: the front points, and no others); bars are one standard error. A curve whose points
    nearly coincide is labelled in a zoomed panel at the side; one that lies far from all others leaves the
    main panel and is seen in an overview at the side.

    Args:
        results: columns of `Score`; in each role (distance, score) the first of `METRICS` is drawn.
        published: columns as of `published_curves`, drawn underneath; ignored unless the metrics are `fid`
            and `clip_score`, because nothing else may be compared with it.
        chances: probability of each cell to be on the front.
        planned: number of cells of the whole run; the figure says so when some are missing.
        energy_note: for the footer, such as "0.012 kWh, 5 g CO2 (estimated)".
        title: above the figure.
        floors: of checkpoints, the distance of their autoencoder alone; dotted lines in their colours. The
            footer says which were measured otherwise.

    Raises:
        InputError: no cell has both a distance and a score.
    """
    metrics, table, floors = roles(results), cells(results), floors or Floors()
    drawn = table.dropna(subset=["distance", "score"])
    if drawn.empty:
        present = ", ".join(sorted(set(results["metric"]))) or "nothing"
        raise InputError(f"no cell has both a distance and a score to plot; the results hold {present}")
    if (metrics["distance"].name, metrics["score"].name) != ("fid", "clip_score"):
        published = None
    look = styles(table["checkpoint"].unique())
    views = _views(drawn, published)
    handles = _legend_handles(look, drawn, published, bool(chances))
    figure, main, sides = _canvas([*handles, *_floor_handles(floors.values)], views)
    for axes in (main, *sides):
        if published is not None:
            draw_published(axes, published, look)
        for name, curve in drawn.groupby("checkpoint", sort=False):
            draw_curve(axes, curve, look[str(name)], chances or {})
    zoomed = _arrange(main, sides, views)
    _draw_floors(main, floors.values, look)
    for metric, describe in ((metrics["score"], main.set_xlabel), (metrics["distance"], main.set_ylabel)):
        describe(f"{metric.label} [{metric.unit}], {metric.direction} is better")
    shown = results[results["metric"].isin([metrics["distance"].name, metrics["score"].name])]
    facts = "\n".join([_facts(shown, drawn, published, energy_note), *floors.left_out])
    main.set_title(_warnings(shown, drawn, planned or len(table)), loc="left", fontsize=9, color=_WARNING)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.supxlabel(facts, x=0.01, ha="left", fontsize=7.5, color="#555555")
    figure.draw_without_rendering()  # fixes the layout, so that labels can be placed in pixels
    label_points(main, drawn[~drawn["checkpoint"].isin(list(zoomed))], look, figure.dpi)
    for name, axes in zoomed.items():
        label_points(axes, drawn[drawn["checkpoint"] == name], look, figure.dpi)
    return figure


def save(figure: Figure, path_stem: Path | str) -> list[Path]:
    """Write `<path_stem>.png` and `<path_stem>.svg` and return both; equal figures give equal SVG bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "sd2eval"}):
        figure.savefig(png, format="png")
        figure.savefig(svg, format="svg", metadata={"Date": None})
    files = {"png": png, "svg": svg}
    return [write_bytes(Path(f"{path_stem}.{kind}"), drawn.getvalue()) for kind, drawn in files.items()]


def _views(drawn: pd.DataFrame, published: pd.DataFrame | None) -> _Views:
    away = outliers(drawn)
    main = limits(drawn[~drawn["checkpoint"].isin(away)], _MARGIN, published)
    overview = limits(drawn, _MARGIN, published) if away else None
    zooms = [*away, *(name for name in crowded(drawn, main, _MAIN_POINTS) if name not in away)]
    zooms = zooms[: _SIDE_PANELS - bool(away)]
    around = {name: limits(drawn[drawn["checkpoint"] == name], 0.3, with_bars=False) for name in zooms}
    return _Views(main, overview, around)


def _canvas(handles: list[Handle], views: _Views) -> tuple[Figure, Axes, list[Axes]]:
    """Return the figure with its main panel, and the side panels below the legend."""
    count = len(views.zooms) + (views.overview is not None)
    figure = Figure(figsize=(9.6, 5.6), dpi=150, layout="constrained")
    columns = figure.add_gridspec(1, 2, width_ratios=[3.4, 1])
    lines = len(handles) + 1
    heights = [lines, *[9] * count, max(25 - lines - 9 * count, 0.01)]  # in lines of the legend
    rows = columns[1].subgridspec(2 + count, 1, height_ratios=heights)
    legend = figure.add_subplot(rows[0])
    legend.axis("off")
    legend.legend(
        handles,
        [str((handle[0] if isinstance(handle, tuple) else handle).get_label()) for handle in handles],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
        loc="upper left",
        borderaxespad=0,
        frameon=False,
        fontsize=8.5,
        handlelength=3.2,
    )
    panels = [figure.add_subplot(columns[0]), *(figure.add_subplot(rows[1 + i]) for i in range(count))]
    for axes in panels:
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].spines[["top", "right"]].set_visible(False)
    for axes in panels[1:]:
        axes.tick_params(labelsize=6.5, length=2)
        axes.locator_params(nbins=4)
    return figure, panels[0], panels[1:]


def _arrange(main: Axes, sides: list[Axes], views: _Views) -> dict[str, Axes]:
    """Give every panel its limits and title, box the parts shown elsewhere, and return the zoomed panels."""
    views.main.apply(main)
    remaining = list(sides)
    if views.overview is not None:
        overview = remaining.pop(0)
        views.overview.apply(overview)
        _box(overview, views.main)
        overview.set_title("all (box: main panel)", fontsize=7.5, loc="left")
    zoomed = dict(zip(views.zooms, remaining, strict=True))
    for name, axes in zoomed.items():
        views.zooms[name].apply(axes)
        _box(main, views.zooms[name])
        axes.set_title(f"zoom: {name}", fontsize=7.5, loc="left")
    return zoomed


def _box(axes: Axes, view: Limits) -> None:
    width, height = view.high - view.low
    axes.add_patch(
        Rectangle(
            (view.low[0], view.low[1]), width, height, fill=False, edgecolor=PALE, linewidth=0.7, zorder=1.5
        )
    )


def _legend_handles(
    look: Mapping[str, Style], drawn: pd.DataFrame, published: pd.DataFrame | None, with_chances: bool
) -> list[Handle]:
    handles: list[Handle] = [
        Line2D([], [], color=style.colour, linestyle=style.line, marker=style.marker, mfc="white", label=name)
        for name, style in look.items()
        if name in set(drawn["checkpoint"])
    ]
    fill = "white" if with_chances else PALE  # the filling is then explained by an entry of its own
    front = Line2D([], [], linestyle="none", marker="o", mfc=fill, mec=INK, mew=1.2, markersize=7)
    front.set_label("on the Pareto front")
    handles.append(front)
    if with_chances:
        handles.append(chance_handles())
    if published is not None:
        handles += published_handles(published, look)
    return handles


def _floor_handles(floors: Mapping[str, float]) -> list[Handle]:
    line = Line2D([], [], color=INK, linestyle=":", linewidth=1.2, label="floor: autoencoder alone")
    return [line] if floors else []


def _draw_floors(main: Axes, floors: Mapping[str, float], look: Mapping[str, Style]) -> None:
    """Draw each floor as a line; the panel begins a little below the lowest."""
    low, high = main.get_ylim()
    for name, value in floors.items():
        main.axhline(value, color=look[name].colour, linestyle=":", linewidth=1.2, zorder=1.2)
        low = min(low, value - _MARGIN * (high - value))
    main.set_ylim(low, high)


def _facts(shown: pd.DataFrame, drawn: pd.DataFrame, published: pd.DataFrame | None, energy_note: str) -> str:
    """Return the footer: n, protocol, what the bars mean, energy."""
    least, most = int(drawn["n"].min()), int(drawn["n"].max())
    n = f"n = {least:,}" if least == most else f"n = {least:,} to {most:,}"
    protocols = ", ".join(shown["protocol"].unique())
    facts = [f"{n} images per cell", f"protocol {protocols}", "bars: 1 standard error"]
    if published is not None:
        facts.append("pale: the model card's figure, n = 10,000")
    line = _BETWEEN.join(facts)
    if not energy_note:
        return line
    fits = len(line) + len(energy_note) < _LINE
    return line + (_BETWEEN if fits else "\n") + energy_note


def _warnings(shown: pd.DataFrame, drawn: pd.DataFrame, planned: int) -> str:
    """Return what makes the figure not the final word; empty when nothing does."""
    warnings = []
    if len(drawn) < planned:
        warnings.append(f"Unfinished: {len(drawn)} of {planned} cells.")
    if (shown.groupby("metric")["protocol"].nunique() > 1).any():
        warnings.append("Points of different protocols are not comparable.")
    return " ".join([*warnings, *biased(shown)])
