"""How a comparison looks: the sentence, what differs, tables that fit 80 columns; JSON and CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sd2eval.comparison.result import CORRECTIONS, Comparison, RunComparison, Shown, format_p
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, Metric
from sd2eval.store import write_bytes

PIPED_WIDTH = 100
"""Columns of what does not go to a terminal."""
_SHOWN_DIFFERENCES = 8
_DROPPED = ({"detectable"}, {"detectable", "A", "B"})
"""Columns that a narrow terminal goes without, and a still narrower one; JSON and CSV always have them."""
_STYLES = {"better": "bold green", "worse": "bold red", "open": "", "identical": "dim"}
_WORDS = {"better": "B better", "worse": "B worse", "open": "open", "identical": "identical"}


def as_json(found: RunComparison) -> str:
    """Return everything as JSON."""
    return json.dumps(found.to_json(), indent=1, allow_nan=False)


def check_csv(path: str | Path) -> Path:
    """Return where a table may be written.

    Raises:
        InputError: no `.csv`, a folder, or a file that is something else than such a table.
    """
    file = Path(path).expanduser()
    if file.suffix != ".csv" or file.is_dir():
        raise InputError(f"out={path}: a file name that ends in .csv is needed")
    if file.exists() and not file.read_text(errors="replace").startswith("checkpoint_a,checkpoint_b,"):
        raise InputError(f"out={path}: exists and holds something else; give another name")
    return file


def write_csv(found: RunComparison, path: Path) -> None:
    """Write one row per comparison.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        write_bytes(path, found.frame.to_csv(index=False).encode())
    except OSError as error:
        raise InputError(f"out={path}: cannot be written ({error.strerror})") from error


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows which cells are being computed, on a terminal only."""
    console = Console(stderr=True)
    with console.status("reading") as status:
        yield lambda cells: status.update(f"comparing {cells}")


def show(found: RunComparison, width: int | None = None) -> None:
    """Print the answer, what it rests on, and the tables."""
    console = Console(width=width or (None if sys.stdout.isatty() else PIPED_WIDTH), highlight=False)
    console.print(Text(found.sentence, style="bold"))
    console.print()
    for line in _about(found):
        console.print(Text(line))
    if found.identical_images == found.image_pairs:
        return
    dropped, tables = _tables(found.rows, console)
    for title, table in tables:
        console.print()
        console.print(Text(title, style="table.title"))
        console.print(table)
    console.print()
    console.print(Text(_legend(found, dropped), style="table.caption"))


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


def _tables(rows: Sequence[Comparison], console: Console) -> tuple[set[str], list[tuple[str, Table]]]:
    """Return what did not fit, and title and table of each metric, all with the same columns."""
    unlimited = console.options.update(width=1000)
    for dropped in (set[str](), *_DROPPED):
        tables = [(_title(metric), _table(own, metric.factor, dropped)) for metric, own in _by_metric(rows)]
        if all(console.measure(table, options=unlimited).maximum <= console.width for _, table in tables):
            break
    return dropped, tables


def _table(rows: Sequence[Comparison], factor: float, dropped: set[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    columns = {head: texts for head, texts in _columns(rows, factor).items() if head not in dropped}
    for head in columns:
        table.add_column(head, justify="left" if head in ("cell", "verdict") else "right", no_wrap=True)
    for row, texts in zip(rows, zip(*columns.values(), strict=True), strict=True):
        table.add_row(*texts, style="bold" if row.whole else "")
    return table


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
        "verdict": [Text(_WORDS[row.verdict], style=_STYLES[row.verdict]) for row in rows],
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


def _legend(found: RunComparison, dropped: set[str]) -> str:
    shares = ", half of the error rate for those of the first sentence"
    explained = " detectable: the difference that would get a verdict with probability 80%."
    method = CORRECTIONS[found.correction] + shares * (len(found.headline) < len(found.rows))
    return (
        f"corrected: p over all {len(found.rows)} comparisons ({method}); below 0.05 it is a verdict. Each "
        "interval is of its comparison alone." + explained * ("detectable" not in dropped)
    )
