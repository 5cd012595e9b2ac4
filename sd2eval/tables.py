"""Records as data frames, and a run's cells as a table for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from sd2eval.metrics import Metric
from sd2eval.pareto import ROLES, cells, roles
from sd2eval.records import Score

Kwh = Mapping[tuple[str, float], float]
"""(checkpoint, guidance scale) to the energy of that cell in kWh."""

_FRONT = "◆"
_BEST = "*"
_LEGEND = f"± 1 standard error, {_BEST} best, {_FRONT} on the Pareto front"


def results_frame(scores: Iterable[Score]) -> pd.DataFrame:
    """Return scores as a data frame of exactly the fields of `Score`, in their order."""
    columns = [field.name for field in fields(Score)]
    return pd.DataFrame([asdict(score) for score in scores], columns=columns)


def terminal_table(results: pd.DataFrame, kwh: Kwh | None = None, *, title: str = "") -> Table:
    """Return a table of one row per cell: each metric with its standard error, n, and the energy if given.

    Args:
        results: columns of `Score`.
        kwh: energy per cell; without it the column is left out.
        title: printed above the table.

    Raises:
        InputError: see `cells`.
    """
    heads, rows, caption = _layout(results, kwh)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.title, table.title_justify = title or None, "left"
    table.caption, table.caption_justify = caption, "left"
    for position, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if position == 0 else "right", no_wrap=True)
    for position, row in enumerate(rows):
        last = position + 1 < len(rows) and rows[position + 1][0] != row[0]
        usual = "bold" if _FRONT in row[1] else ""
        texts = [Text(cell, style="bold green" if cell.startswith(_BEST) else usual) for cell in row]
        table.add_row(*texts, end_section=last)
    return table


def markdown_table(results: pd.DataFrame, kwh: Kwh | None = None) -> str:
    """Return the same table as GitHub Markdown, best values bold, with the legend below."""
    heads, rows, caption = _layout(results, kwh)
    lines = [[head.replace("\n", " ") for head in heads], ["---", *["---:"] * (len(heads) - 1)]]
    lines += [[_emphasised(cell) for cell in row] for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{caption.replace(f'{_BEST} best', '**bold** best')}\n"


def _emphasised(cell: str) -> str:
    return f"**{cell.removeprefix(_BEST)}**" if cell.startswith(_BEST) else cell.strip()


def _layout(results: pd.DataFrame, kwh: Kwh | None) -> tuple[list[str], list[list[str]], str]:
    """Return heads (two lines for a metric), rows and caption; a best value starts with a star."""
    wide = cells(results)
    metrics = roles(results)
    columns = {"checkpoint": list(wide["checkpoint"])}
    decimals = max((len(f"{scale:g}".partition(".")[2]) for scale in wide["guidance_scale"]), default=0)
    columns["scale"] = [
        f"{_FRONT if on_front else ' '} {scale:.{decimals}f}"
        for scale, on_front in zip(wide["guidance_scale"], wide["front"], strict=True)
    ]
    for role in ROLES:
        if role in metrics:
            columns[_head(metrics[role])] = _marked(wide[role], wide[f"{role}_stderr"], metrics[role])
    same_n = wide["n"].nunique() == 1
    if not same_n:
        columns["n"] = [str(n) for n in wide["n"]]
    if kwh is not None:
        pairs = zip(wide["checkpoint"], wide["guidance_scale"], strict=True)
        unit, factor = ("kWh", 1.0) if max(kwh.values(), default=0.0) >= 0.1 else ("Wh", 1000.0)
        columns[unit] = [f"{factor * kwh[pair]:.2g}" if pair in kwh else "-" for pair in pairs]
    caption = f"n = {wide['n'].iloc[0]:,} per cell, {_LEGEND}" if same_n else _LEGEND
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)], caption


def _head(metric: Metric) -> str:
    factor = "" if metric.factor == 1 else f"x{metric.factor:g} "
    return f"{metric.label}\n{factor}{'↑' if metric.direction == 'higher' else '↓'}"


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
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"
