"""How the verdict on a run looks: one sentence, a table for each metric, and what was not compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sd2eval import answers, terminal
from sd2eval.reproduction.reproduce import Reproduction

PIPED_WIDTH = 80
BEGINNING = "checkpoint,label,guidance_scale,metric,published,"
"""Of the CSV's first line."""
_TITLES = {"fid": "FID", "clip_score": "CLIP score"}
_DIGITS = {"fid": 2, "clip_score": 4}
"""Decimals with which the figure can be read."""
_LEFT_OUT = (
    "Left out of the bands: the protocol spread, how far a score moves with what the card does not say "
    "(reference images, FID code, resize, CLIP preprocessing, precision). Nobody has measured it for this "
    "figure; add yours as {keys}."
)


def show(result: Reproduction, console: Console | None = None) -> None:
    """Print the verdict; names and numbers are whole at any width."""
    console = console or terminal.console(PIPED_WIDTH)
    answers.say(console, result.sentence, "bold green" if result.reproduced else "bold")
    compared = result.points[result.points["verdict"] != "not comparable"]
    for metric, rows in compared.groupby("metric", sort=False):
        answers.say(console)
        answers.say(console, _TITLES[str(metric)], "table.title")
        terminal.show_whole(console, terminal.keep_whole(_table(rows, str(metric))))
        answers.say(console, _parts(result, rows, str(metric)), "dim")
    if len(compared):
        for paragraph in _legend(result, len(compared)):
            answers.say(console)
            answers.say(console, paragraph, "dim")
    if len(compared) < len(result.points):
        answers.say(console)
        answers.say(console, "Not compared:")
    for line in _not_compared(result.points):
        answers.say(console, f"- {line}")


def _table(rows: pd.DataFrame, metric: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    heads = ("checkpoint", "scale", "card", "here", "diff", "sampling", "band", "verdict")
    for head in heads:
        table.add_column(head, justify="left" if head in ("checkpoint", "verdict") else "right", no_wrap=True)
    digits = _DIGITS[metric]
    names = list(rows["checkpoint"])
    for row, after in zip(rows.to_dict("records"), [*names[1:], names[-1]], strict=True):
        table.add_row(
            row["checkpoint"],
            f"{row['guidance_scale']:.1f}",
            f"{row['published']:.{digits}f}",
            f"{row['measured']:.{digits}f}",
            f"{row['difference']:+z.{digits}f}",
            f"{row['sampling']:.{digits}f}",
            f"±{row['band']:.{digits}f}",
            _verdict(row),
            end_section=after != row["checkpoint"],
        )
    return table


def _verdict(row: Mapping[Any, Any]) -> Text:
    if row["verdict"] == "reproduced":
        return Text("reproduced", style="green")
    decimals = 1 if abs(row["bands"]) < 9.95 else 0
    return Text(f"differs {row['bands']:+.{decimals}f}x", style="bold red")


def _parts(result: Reproduction, rows: pd.DataFrame, metric: str) -> str:
    spread = f"{result.protocol_spread[metric]:g} (protocol)" if result.protocol_spread[metric] else ""
    parts = ["sampling", f"{rows['reading'].iloc[0]:g} (reading the figure)", *filter(None, [spread])]
    return f"band: {' + '.join(parts)}"


def _legend(result: Reproduction, compared: int) -> Iterator[str]:
    """Yield what sampling means, how differences are counted, and what the bands leave out."""
    yield (
        f"sampling: {result.factor:.2f} x the standard error of the difference, so that all {compared} "
        f"comparisons hold together at {100 * result.level:g}% (Sidak); the card's own error is taken "
        "to be this run's, scaled to 10,000 images. differs +2.0x: twice the band too high."
    )
    left_out = [name for name, spread in result.protocol_spread.items() if spread == 0]
    if left_out:
        yield _LEFT_OUT.format(keys=" ".join(f"protocol_spread.{name}=X" for name in left_out))


def _not_compared(points: pd.DataFrame) -> Iterator[str]:
    """Yield one line for each reason, with the points that it holds for."""
    left = points[points["verdict"] == "not comparable"]
    for reason, rows in left.groupby("reason", sort=False):
        by_points: dict[str, list[str]] = {}
        for metric, part in rows.groupby("metric", sort=False):
            by_points.setdefault(", ".join(_points(part, points)), []).append(_TITLES[str(metric)])
        whose = [f"{' and '.join(titles)} of {where}" for where, titles in by_points.items()]
        yield f"{'; '.join(whose)}: {reason}"


def _points(rows: pd.DataFrame, points: pd.DataFrame) -> Iterator[str]:
    """Yield each checkpoint, with its scales where it is not all of them."""
    whole = points.groupby("checkpoint")["guidance_scale"].nunique()
    for name, part in rows.groupby("checkpoint", sort=False):
        scales = ", ".join(f"{scale:g}" for scale in part["guidance_scale"])
        yield str(name) if len(part) == whole[name] else f"{name} at {scales}"
