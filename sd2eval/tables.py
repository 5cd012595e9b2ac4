"""Records as data frames, and a run's cells as a table for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sd2eval.metrics import METRICS, Metric, Part
from sd2eval.pareto import ROLES, Chances, biased, cells, roles
from sd2eval.records import Score
from sd2eval.terminal import keep_whole

Kwh = Mapping[tuple[str, float], float]
"""(checkpoint, guidance scale) to the energy of that cell in kWh."""

_FRONT = "◆"
_BEST = "*"
_LEGEND = f"± 1 standard error, {_BEST} best, {_FRONT} on the Pareto front"
_CHANCES_LEGEND = ", front: probability of being on it"
_FURTHER_LEGEND = f"± 1 standard error, {_BEST} best"
_PAIRED_LEGEND = f"{_FURTHER_LEGEND} of its checkpoint"
PARTS: dict[Part, str] = {
    "image": "Each image against the caption's own",
    "mask": "The same, inside the painted mask",
    "depth": "Depth seen in each image against the depth given",
}
"""Titles of the tables of paired metrics."""
_FURTHER = "Further metrics"
_HEAD = 12
"""Characters of a label beyond which what it has in brackets goes on the second line."""
_ABREAST = 4
"""Metrics in one further table, so that it fits into 80 columns."""
_Layout = tuple[list[str], list[list[str]], str]
"""Heads (two lines for a metric), rows and caption; a best value starts with a star."""


def results_frame(scores: Iterable[Score]) -> pd.DataFrame:
    """Return scores as a data frame of exactly the fields of `Score`, in their order."""
    columns = [field.name for field in fields(Score)]
    return pd.DataFrame([asdict(score) for score in scores], columns=columns)


def terminal_table(
    results: pd.DataFrame, kwh: Kwh | None = None, *, chances: Chances | None = None, title: str = ""
) -> Group:
    """Return a table of one row per cell: each metric with its standard error, n, and the energy if given.

    Args:
        results: columns of `Score`.
        kwh: energy per cell; without it the column is left out.
        chances: probability of each cell to be on the front; without it the column is left out.
        title: printed above the table.

    Raises:
        InputError: see `cells`.
    """
    return _terminal(_layout(results, kwh, chances), title)


def further_terminal_tables(results: pd.DataFrame) -> list[Group]:
    """Return the tables of what is not in the main one: further metrics, then each part that is compared."""
    return [_terminal(layout, title) for title, layout in _further_layouts(results)]


def _terminal(layout: _Layout, title: str) -> Group:
    """Title and caption are lines of their own: in a narrow table they would be broken."""
    heads, rows, caption = layout
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for position, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if position == 0 else "right", no_wrap=True)
    for position, row in enumerate(rows):
        last = position + 1 < len(rows) and rows[position + 1][0] != row[0]
        usual = "bold" if _FRONT in row[1] else ""
        texts = [Text(cell, style="bold green" if cell.startswith(_BEST) else usual) for cell in row]
        table.add_row(*texts, end_section=last)
    above = [Text(title, style="table.title")] if title else []
    return Group(*above, keep_whole(table), Text(caption, style="table.caption"))


def markdown_table(results: pd.DataFrame, kwh: Kwh | None = None, *, chances: Chances | None = None) -> str:
    """Return the same table as GitHub Markdown, best values bold, with the legend below."""
    return _markdown(_layout(results, kwh, chances))


def further_markdown_tables(results: pd.DataFrame) -> str:
    """Return the same further tables as GitHub Markdown, each under its title; empty without any."""
    return "\n".join(f"{title}:\n\n{_markdown(layout)}" for title, layout in _further_layouts(results))


def _markdown(layout: _Layout) -> str:
    heads, rows, caption = layout
    lines = [[head.replace("\n", " ") for head in heads], ["---", *["---:"] * (len(heads) - 1)]]
    lines += [[_emphasised(cell) for cell in row] for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{caption.replace(f'{_BEST} best', '**bold** best')}\n"


def _emphasised(cell: str) -> str:
    return f"**{cell.removeprefix(_BEST)}**" if cell.startswith(_BEST) else cell.strip()


def _further_layouts(results: pd.DataFrame) -> Iterator[tuple[str, _Layout]]:
    """Yield title and layout of the further tables, with the checkpoints that have a row there."""
    present = [METRICS[name] for name in METRICS if name in set(results["metric"])]
    shown = [metric.name for metric in roles(results).values()]
    others = [metric for metric in present if metric.kind != "paired" and metric.name not in shown]
    for start in range(0, len(others), _ABREAST):
        yield _FURTHER, _further_layout(results, others[start : start + _ABREAST])
    for part, title in PARTS.items():
        metrics = [metric for metric in present if metric.kind == "paired" and metric.part == part]
        if metrics:
            yield title, _further_layout(results, metrics)


def _further_layout(results: pd.DataFrame, metrics: list[Metric]) -> _Layout:
    rows = results[results["metric"].isin([metric.name for metric in metrics])]
    keys = ["checkpoint", "guidance_scale"]
    order = {name: rank for rank, name in enumerate(rows["checkpoint"].unique())}
    wide = rows[keys].drop_duplicates()
    wide = wide.sort_values(keys, key=lambda column: column.map(order) if column.name == keys[0] else column)
    columns = {"checkpoint": list(wide["checkpoint"]), "scale": _scales(wide["guidance_scale"])}
    for metric in metrics:
        own = rows[rows["metric"] == metric.name][[*keys, "value", "stderr"]]
        found = wide.merge(own, on=keys, how="left")
        paired = metric.kind == "paired"
        parts = [part for _, part in found.groupby("checkpoint", sort=False)] if paired else [found]
        columns[_head(metric)] = [
            text for part in parts for text in _marked(part["value"], part["stderr"], metric)
        ]
    caption = _PAIRED_LEGEND if metrics[0].kind == "paired" else _FURTHER_LEGEND
    if rows["n"].nunique() == 1:
        caption = f"n = {rows['n'].iloc[0]:,} per cell, {caption}"
    else:
        counts = wide.merge(rows.groupby(keys, as_index=False).agg(n=("n", "min")), on=keys, how="left")
        columns["n"] = [str(n) for n in counts["n"]]
    return (
        list(columns),
        [list(row) for row in zip(*columns.values(), strict=True)],
        caption + "".join(f"\n{line}" for line in [*_doubts(metrics), *biased(rows)]),
    )


def _doubts(metrics: Iterable[Metric]) -> list[str]:
    """Return where the metrics' standard errors are no basis of a 95% interval, one line each."""
    unsure = [metric for metric in metrics if metric.kind != "paired" and metric.claim.approximate]
    return [f"{metric.label}: interval {metric.claim.approximate}" for metric in unsure]


def _scales(scales: pd.Series[float]) -> list[str]:
    """Return guidance scales with as many decimals as the longest needs."""
    decimals = max((len(f"{scale:g}".partition(".")[2]) for scale in scales), default=0)
    return [f"{scale:.{decimals}f}" for scale in scales]


def _layout(results: pd.DataFrame, kwh: Kwh | None, chances: Chances | None) -> _Layout:
    wide = cells(results)
    metrics = roles(results)
    columns = {"checkpoint": list(wide["checkpoint"])}
    columns["scale"] = [
        f"{_FRONT if on_front else ' '} {scale}"
        for scale, on_front in zip(_scales(wide["guidance_scale"]), wide["front"], strict=True)
    ]
    pairs = list(zip(wide["checkpoint"], wide["guidance_scale"], strict=True))
    if chances:
        columns["front"] = [f"{chances[pair]:.2f}" if pair in chances else "-" for pair in pairs]
    for role in ROLES:
        if role in metrics:
            columns[_head(metrics[role])] = _marked(wide[role], wide[f"{role}_stderr"], metrics[role])
    same_n = wide["n"].nunique() == 1
    if not same_n:
        columns["n"] = [str(n) for n in wide["n"]]
    if kwh is not None:
        unit, factor = ("kWh", 1.0) if max(kwh.values(), default=0.0) >= 0.1 else ("Wh", 1000.0)
        columns[unit] = [f"{factor * kwh[pair]:.2g}" if pair in kwh else "-" for pair in pairs]
    caption = f"n = {wide['n'].iloc[0]:,} per cell, {_LEGEND}" if same_n else _LEGEND
    caption += _CHANCES_LEGEND if chances else ""
    shown = [metric.name for metric in metrics.values()]
    caption += "".join(f"\n{warning}" for warning in biased(results[results["metric"].isin(shown)]))
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)], caption


def _head(metric: Metric) -> str:
    arrow = "↑" if metric.direction == "higher" else "↓"
    name, bracket, rest = metric.label.partition(" (")
    if bracket and len(metric.label) > _HEAD and metric.factor == 1:
        return f"{name}\n({rest} {arrow}"
    return f"{metric.label}\n{'' if metric.factor == 1 else f'x{metric.factor:g} '}{arrow}"


def _marked(values: pd.Series[float], errors: pd.Series[float], metric: Metric) -> list[str]:
    best = values.max() if metric.direction == "higher" else values.min()
    return [
        (_BEST if value == best else "") + format_value(value * metric.factor, error * metric.factor)
        for value, error in zip(values, errors, strict=True)
    ]


def format_value(value: float, stderr: float) -> str:
    """Return `value ± stderr` to two significant digits of the standard error."""
    if math.isnan(value):
        return "-"
    if not (math.isfinite(stderr) and stderr > 0):
        return f"{value:.4g} ± 0" if stderr == 0 else f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"
