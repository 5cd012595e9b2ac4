"""Tables on a terminal of any width: names and numbers are never cut, a line may run over the edge."""

from __future__ import annotations

import os
import sys

from rich.console import Console, RenderableType
from rich.table import Table

UNLIMITED = 100_000
"""More columns than any table has."""


def console(piped: int) -> Console:
    """Return a console on stdout as wide as the terminal, or as COLUMNS says; else of `piped` columns."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:  # rich keeps the environment of its import
        return Console(width=int(columns), highlight=False)
    return Console(width=None if sys.stdout.isatty() else piped, highlight=False)


def keep_whole(table: Table) -> Table:
    """Return the filled table with the width that it takes, whatever room there is."""
    for column in table.columns:
        column.no_wrap = True
    table.width = Console(width=UNLIMITED).measure(table).maximum
    return table


def show_whole(console: Console, *renderables: RenderableType, soft_wrap: bool = False) -> None:
    """Print without cutting what is wider than the console; with `soft_wrap` without breaking lines."""
    console.print(*renderables, sep="\n", crop=False, soft_wrap=soft_wrap)
