"""How a protocol matrix looks: the sentence, one row per protocol, one per cell, then what was left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from sd2eval import answers, terminal
from sd2eval.matrix.result import ProtocolMatrix, Shift, cell_words, grouped, label, plain
from sd2eval.metrics import METRICS
from sd2eval.tables import format_value

PIPED_WIDTH = 80
BEGINNING = "checkpoint,guidance_scale,protocol,metric,value,"
"""Of the CSV's first line."""
_LEFT = ("protocol", "at", "cell")
SETTLED = "Decided before the PNGs were written, so not varied (the numbers have the run's own choice there):"


def show(found: ProtocolMatrix, console: Console | None = None) -> None:
    """Print the answer, then what it rests on; names and numbers are whole at any width."""
    console = console or terminal.console(PIPED_WIDTH)
    answers.say(console, found.sentence, "bold")
    if found.ranks.sentence:
        answers.say(console, found.ranks.sentence)
    answers.say(console)
    answers.say(console, _about(found))
    for title, table in _tables(found):
        answers.say(console)
        answers.say(console, title, "table.title")
        terminal.show_whole(console, terminal.keep_whole(table))
    for heading, lines in _sections(found):
        answers.say(console)
        answers.say(console, heading)
        for line in lines:
            answers.say(console, f"- {line}")
    answers.say(console)
    answers.say(console, _agreement(found), "" if found.agreement.agrees else "bold red")
    for line in found.notes:
        answers.say(console, line)
    if found.reproduce_words:
        console.print(
            f"for the verdict: reproduce {found.run} {found.reproduce_words}", soft_wrap=True, markup=False
        )


def _about(found: ProtocolMatrix) -> str:
    return f"run: {found.run}, protocol {found.protocol}, {_n(found)}, {found.reference_n:,} real images"


def _tables(found: ProtocolMatrix) -> Iterator[tuple[str, Table]]:
    factor = METRICS[found.metric].factor
    name, first = label(found.metric), found.first_words
    if len(found.shifts) > 1:
        against = "the run's own protocol" if found.first == found.own else "the first protocol"
        yield f"{name} against {against}, {first}", _shift_table(found, factor)
    yield f"{name} by cell: under {first}, and the range over all protocols", _cell_table(found, factor)


def _n(found: ProtocolMatrix) -> str:
    counts = [value.n for value in found.values]
    fewest, most = min(counts), max(counts)
    return f"n = {fewest:,} per cell" if fewest == most else f"n = {fewest:,} to {most:,}"


def _shift_table(found: ProtocolMatrix, factor: float) -> Table:
    table = answers.empty_table("protocol", "mean shift", "largest", "at", left=_LEFT)
    for shift in found.shifts[1:]:
        if shift.same_as == found.first:
            table.add_row(shift.protocol, "0", "0", "the same numbers")
            continue
        mean = format_value(shift.mean * factor, shift.mean_stderr * factor)
        sign = "" if mean.startswith("-") else "+"
        where = cell_words(shift.largest_checkpoint, shift.largest_scale)
        same = f" (= {shift.same_as})" if shift.same_as else ""
        table.add_row(shift.protocol, f"{sign}{mean}", plain(shift.largest * factor, "+"), where + same)
    return table


def _cell_table(found: ProtocolMatrix, factor: float) -> Table:
    table = answers.empty_table("cell", "value", "lowest", "highest", "spread", "in ±", left=_LEFT)
    for row in found.spreads:
        value, lowest, highest = (
            format_value(number * factor, row.stderr * factor)
            for number in (row.value, row.lowest, row.highest)
        )
        ends = (text.partition(" ")[0] for text in (lowest, highest))
        cell = cell_words(row.checkpoint, row.guidance_scale)
        table.add_row(cell, value, *ends, plain(row.spread * factor), f"{row.errors:.1f}")
    return table


def _sections(found: ProtocolMatrix) -> Iterator[tuple[str, list[str]]]:
    """Yield headings with their lines, only where there are some."""
    chosen = [f"{shift.protocol}: {', '.join(shift.differs)}" for shift in found.shifts if shift.differs]
    settled = [f"{shift.protocol}: {_settled(shift, found)}" for shift in found.shifts if shift.not_varied]
    for heading, lines in (
        (f"What each chooses otherwise than {found.protocol}, the run's own:", chosen),
        (SETTLED, settled),
        ("Left out:", grouped(found.left_out)),
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
        why = "it is left out" if found.first != found.own else f"it has no {found.metric} of these cells"
        return f"{found.protocol} is not checked against the run's results.csv: {why}"
    numbers = f"largest relative difference {agreement.largest:.1g}"
    if agreement.agrees:
        return f"{found.protocol}, the run's own, gives its results.csv again from the PNGs ({numbers})"
    where = cell_words(agreement.checkpoint, agreement.guidance_scale)
    return (
        f"WARNING: {found.protocol}, the run's own, does not give its results.csv again from the PNGs "
        f"({numbers}, {where}): "
        "other real images, another device or another version of sd2eval"
    )
