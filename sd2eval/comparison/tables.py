"""How a comparison looks: the sentence, what differs, tables that fit 80 columns; JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sd2eval import answers, terminal
from sd2eval.comparison.result import CORRECTIONS, Comparison, RunComparison, Shown, format_p
from sd2eval.metrics import METRICS, Metric

PIPED_WIDTH = 100
"""Columns of what does not go to a terminal; from here on no column is left out."""
BEGINNING = "checkpoint_a,checkpoint_b,"
"""Of the CSV's first line."""
_SHOWN_DIFFERENCES = 8
_DROPPED = (("detectable",), ("A", "B", "detectable"))
"""Columns that a narrow terminal goes without, and a still narrower one; JSON and CSV always have them."""
_STYLES = {"better": "bold green", "worse": "bold red", "open": "", "equal": "dim", "identical": "dim"}
_WORDS = {"better": "B better", "worse": "B worse"}
"""Verdicts in other words than their own."""


def show(found: RunComparison, console: Console | None = None) -> None:
    """Print the answer, what it rests on, and the tables; names and numbers are whole at any width."""
    console = console or terminal.console(PIPED_WIDTH)
    answers.say(console, found.sentence, "bold")
    answers.say(console)
    for line in _about(found):
        answers.say(console, line)
    if found.identical_images == found.image_pairs:
        return
    dropped, tables = _tables(found.rows, console.width)
    for title, table in tables:
        answers.say(console)
        answers.say(console, title, "table.title")
        terminal.show_whole(console, table)
    answers.say(console)
    answers.say(console, _legend(found, dropped), "table.caption")
    if dropped:
        left_out = f"left out to fit into {console.width} columns: {', '.join(dropped)}"
        answers.say(console, f"{left_out}; COLUMNS=120, json=true or out=FILE.csv has them", "table.caption")


def _about(found: RunComparison) -> Iterator[str]:
    yield f"A: {found.a}"
    yield f"B: {found.b}"
    widest = max(found.rows, key=lambda row: row.n)
    yield (
        f"paired by {found.paired_by}: {widest.n:,} captions of {widest.images:,} images, protocol "
        f"{found.protocol}, {found.identical_images:,} of {found.image_pairs:,} pairs of images identical"
    )
    shown = [f"{item.field} {item.a} -> {item.b}" for item in found.differs[:_SHOWN_DIFFERENCES]]
    more = len(found.differs) - len(shown)
    rest = f"; and {more} more (json=true lists them)" if more else ""
    yield f"what differs (A -> B): {'; '.join(shown) or 'nothing that is recorded'}{rest}"
    yield from found.notes


def _by_metric(rows: Sequence[Comparison]) -> Iterator[tuple[Metric, list[Comparison]]]:
    for name in dict.fromkeys(row.metric for row in rows):
        yield METRICS[name], [row for row in rows if row.metric == name]


def _title(metric: Metric) -> str:
    factor = f" x{metric.factor:g}" if metric.factor != 1 else ""
    return f"{metric.label}{factor}, {metric.direction} is better"


def _tables(rows: Sequence[Comparison], width: int) -> tuple[Sequence[str], list[tuple[str, Table]]]:
    """Return which columns are left out so that the rest fits, and title and table of each metric.

    Where the rest would not fit either nothing is left out: the lines run over the edge anyway.
    """
    for dropped in ((), *_DROPPED):
        tables = [(_title(metric), _table(own, metric.factor, dropped)) for metric, own in _by_metric(rows)]
        if width >= PIPED_WIDTH or all((table.width or 0) <= width for _, table in tables):
            return dropped, tables
    return (), [(_title(metric), _table(own, metric.factor, ())) for metric, own in _by_metric(rows)]


def _table(rows: Sequence[Comparison], factor: float, dropped: Sequence[str]) -> Table:
    columns = {head: texts for head, texts in _columns(rows, factor).items() if head not in dropped}
    table = answers.empty_table(*columns, left=("cell", "verdict"))
    for row, texts in zip(rows, zip(*columns.values(), strict=True), strict=True):
        table.add_row(*texts, style="bold" if row.whole else "")
    return terminal.keep_whole(table)


def _columns(rows: Sequence[Comparison], factor: float) -> dict[str, list[str | Text]]:
    shown = [Shown(row, factor) for row in rows]
    return {
        "cell": _cells(rows),
        "A": [numbers.number(numbers.row.a) for numbers in shown],
        "B": [numbers.number(numbers.row.b) for numbers in shown],
        "B - A": [numbers.difference for numbers in shown],
        "95% interval": [numbers.interval for numbers in shown],
        "p": [format_p(row.p) for row in rows],
        "corrected": [format_p(row.p_corrected) for row in rows],
        "detectable": [numbers.detectable for numbers in shown],
        "verdict": [Text(_WORDS.get(row.verdict, row.verdict), style=_STYLES[row.verdict]) for row in rows],
    }


def _cells(rows: Sequence[Comparison]) -> list[str | Text]:
    several = len({(row.checkpoint_a, row.checkpoint_b) for row in rows}) > 1
    return [_cell(row, several) for row in rows]


def _cell(row: Comparison, several: bool) -> str:
    if row.scale_a is None or row.scale_b is None:
        scale = f"mean of {row.cells}"
    else:
        scale = f"{row.scale_a:g}" if row.scale_a == row.scale_b else f"{row.scale_a:g} -> {row.scale_b:g}"
    if not several:
        return scale
    if not row.checkpoint_a:
        return f"all, mean of {row.cells}"
    return f"{row.checkpoint_a} {scale}"


def _legend(found: RunComparison, dropped: Sequence[str]) -> str:
    shares = ", half of the error rate for those of the first sentence"
    method = CORRECTIONS[found.correction] + shares * (len(found.headline) < len(found.rows))
    lines = [
        f"corrected: p over all {len(found.rows)} comparisons ({method}); below 0.05 it is a verdict. Each "
        "interval is of its comparison alone."
    ]
    if "detectable" not in dropped:
        lines.append("detectable: the difference that would get a verdict with probability 80%.")
    if any(row.verdict == "equal" for row in found.rows):
        lines.append("equal: the whole interval is within a thousandth of A's standard error.")
    return " ".join(lines)
