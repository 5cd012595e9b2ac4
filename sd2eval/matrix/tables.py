"""How a protocol matrix looks: the sentence, one row per protocol, one per cell, then what was left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sd2eval import terminal
from sd2eval.errors import InputError
from sd2eval.matrix.result import ProtocolMatrix, Shift, cell_words, label
from sd2eval.metrics import METRICS
from sd2eval.store import write_bytes
from sd2eval.transfer.part import writing

PIPED_WIDTH = 80
HEADER = "checkpoint,guidance_scale,protocol,metric,value,"
SETTLED = "Decided before the PNGs were written, so not varied (the numbers have the run's own choice there):"


def as_json(found: ProtocolMatrix) -> str:
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
    if file.exists() and not file.read_bytes().startswith(HEADER.encode()):
        raise InputError(f"out={path}: exists and holds something else; give another name")
    return file


def write_csv(found: ProtocolMatrix, path: Path) -> None:
    """Write one row per cell and protocol.

    Raises:
        InputError: the file cannot be written.
    """
    with writing(path):
        write_bytes(path, found.frame.to_csv(index=False).encode())


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being done, on a terminal only."""
    console = Console(stderr=True)
    with console.status("reading the run") as status:
        yield lambda step: status.update(step)


def show(found: ProtocolMatrix, console: Console | None = None) -> None:
    """Print the answer, then what it rests on."""
    console = console or terminal.console(PIPED_WIDTH)
    console.print(Text(found.sentence, style="bold"))
    if found.ranks.sentence:
        console.print(Text(found.ranks.sentence))
    for title, table in _tables(found):
        console.print()
        console.print(Text(title, style="table.title"))
        terminal.show_whole(console, terminal.keep_whole(table))
    for heading, lines in _sections(found):
        console.print(f"\n{heading}")
        for line in lines:
            console.print(Text(f"- {line}"))
    console.print()
    console.print(Text(_agreement(found)), style="" if found.agreement.agrees else "bold red")
    for line in found.notes:
        console.print(Text(line))
    if found.reproduce_words:
        console.print(Text(f"for the verdict: reproduce {found.run} {found.reproduce_words}"), soft_wrap=True)


def _tables(found: ProtocolMatrix) -> Iterator[tuple[str, Table]]:
    factor = METRICS[found.metric].factor
    if len(found.shifts) > 1:
        against = "the run's own protocol" if found.first == found.own else "the first protocol"
        yield f"{label(found.metric)} against {against}, {found.first}", _shift_table(found, factor)
    yield (
        f"{label(found.metric)} by cell: {found.first}, and the range over all protocols, {_n(found)}",
        _cell_table(found, factor),
    )


def _n(found: ProtocolMatrix) -> str:
    counts = [value.n for value in found.values]
    fewest, most = min(counts), max(counts)
    return f"n = {fewest:,} per cell" if fewest == most else f"n = {fewest:,} to {most:,}"


def _shift_table(found: ProtocolMatrix, factor: float) -> Table:
    table = _empty("protocol", "mean shift", "±", "largest", "at")
    for shift in found.shifts[1:]:
        if shift.same_as == found.first:
            table.add_row(shift.protocol, "0", "0", "0", "the same numbers")
            continue
        where = cell_words(shift.largest_checkpoint, shift.largest_scale)
        numbers = (f"{number * factor:+.3g}" for number in (shift.mean, shift.largest))
        mean, largest = numbers
        same = f" (= {shift.same_as})" if shift.same_as else ""
        table.add_row(shift.protocol, mean, f"{shift.mean_stderr * factor:.2g}", largest, where + same)
    return table


def _cell_table(found: ProtocolMatrix, factor: float) -> Table:
    table = _empty("cell", "value", "±", "lowest", "highest", "spread", "in ±")
    for row in found.spreads:
        numbers = (row.value, row.stderr, row.lowest, row.highest, row.spread)
        texts = [f"{number * factor:#.4g}" for number in numbers]
        texts[1] = f"{row.stderr * factor:.2g}"
        table.add_row(cell_words(row.checkpoint, row.guidance_scale), *texts, f"{row.errors:.1f}")
    return table


def _empty(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in ("protocol", "at", "cell") else "right")
    return table


def _sections(found: ProtocolMatrix) -> Iterator[tuple[str, list[str]]]:
    """Yield headings with their lines, only where there are some."""
    chosen = [f"{shift.protocol}: {', '.join(shift.differs)}" for shift in found.shifts if shift.differs]
    settled = [f"{shift.protocol}: {_settled(shift, found)}" for shift in found.shifts if shift.not_varied]
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(name)
    left_out = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    for heading, lines in (
        (f"What each chooses otherwise than {found.own}:", chosen),
        (SETTLED, settled),
        ("Left out:", left_out),
    ):
        if lines:
            yield heading, lines


def _settled(shift: Shift, found: ProtocolMatrix) -> str:
    """Return the keys that came too late, with the checkpoints where it is not all of them."""
    everything = {row.checkpoint for row in found.spreads}
    return ", ".join(
        key if set(names) == everything else f"{key} ({', '.join(names)})"
        for key, names in shift.not_varied.items()
    )


def _agreement(found: ProtocolMatrix) -> str:
    agreement = found.agreement
    if not agreement.compared:
        why = (
            f"{found.own} is left out"
            if found.first != found.own
            else f"it has no {found.metric} of these cells"
        )
        return f"not checked against the run's results.csv: {why}"
    numbers = f"largest relative difference {agreement.largest:.1g}"
    if agreement.agrees:
        return f"{found.own} from the PNGs gives the run's results.csv again ({numbers})"
    where = cell_words(agreement.checkpoint, agreement.guidance_scale)
    return (
        f"WARNING: {found.own} from the PNGs does not give the run's results.csv again ({numbers}, {where}): "
        "other real images, another device or another version of sd2eval"
    )
