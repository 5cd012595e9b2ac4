"""How the list of weights looks: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from sd2eval.transfer.meter import format_bytes
from sd2eval.weights.inventory import Holding

PIPED_WIDTH = 100
PATH_WIDTH = 160
"""From this width on the table has room for paths."""
SHORT = 12
"""Hexadecimal digits of a digest that are shown."""


def as_json(holdings: Sequence[Holding]) -> str:
    """Return everything that is known of the weights as a JSON list."""
    return json.dumps([_record(held) for held in holdings], indent=1)


def show(holdings: Sequence[Holding]) -> None:
    """Print the table, or where there is no room for its columns one indented entry after another."""
    from rich.table import Table
    from rich.text import Text

    from sd2eval import terminal

    console = terminal.console(PIPED_WIDTH)
    if console.width < PIPED_WIDTH:
        for held in holdings:
            terminal.show_whole(console, *(Text(line) for line in _entry(held)), soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    wide = console.width >= PATH_WIDTH
    for title in ("weights", "what it is, its file, where it is", "about", "here, SHA-256"):
        table.add_column(title, overflow="fold", no_wrap=title == "weights")
    if wide:
        table.add_column("path", overflow="fold")
    for held in holdings:
        table.add_row(*_cells(held), *([str(held.path or "")] if wide else []))
    console.print(table)


def _entry(held: Holding) -> list[str]:
    name, what, size, here = _cells(held)
    state, digest = here.split("\n")
    describes, file, where = what.split("\n")
    return [
        f"{name}: {state}",
        *(f"  {line}" for line in (describes, file, where)),
        f"  {size}, SHA-256 {digest}",
    ]


def _cells(held: Holding) -> list[str]:
    entry = held.entry
    size = format_bytes(entry.about_bytes).replace(" ", "\N{NO-BREAK SPACE}") if entry.about_bytes else ""
    where = entry.repository or urlsplit(entry.url or "").hostname or ""
    return [entry.name, f"{entry.describes}\n{entry.file}\n{where}", size, f"{held.state}\n{_digest(held)}"]


def _digest(held: Holding) -> str:
    if held.entry.sha256:
        return held.entry.sha256[:SHORT]
    return f"recorded {held.first_use.sha256[:SHORT]}" if held.first_use else "none published"


def _record(held: Holding) -> dict[str, Any]:
    return asdict(held.entry) | {
        "state": held.state,
        "path": str(held.path) if held.path else None,
        "recorded": asdict(held.first_use) if held.first_use else None,
    }
