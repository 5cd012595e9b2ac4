"""What the verbs that answer in one sentence share: paragraphs, tables, JSON, and a CSV file at out=."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sd2eval.errors import InputError
from sd2eval.store import write_bytes


def as_json(record: Mapping[str, Any]) -> str:
    """Return a record as JSON; what is not a number must be null already."""
    return json.dumps(record, indent=1, allow_nan=False)


def say(console: Console, text: str = "", style: str = "") -> None:
    """Print a paragraph that is broken at spaces only, so that names, numbers and paths stay whole."""
    lines = textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(Text("\n".join(lines), style=style), soft_wrap=True)


def empty_table(*heads: str, left: Collection[str]) -> Table:
    """Return a table without rows.

    Args:
        heads: of its columns.
        left: those whose cells are words; numbers stand at the right.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    return table


@contextmanager
def busy(first: str, then: str = "{}") -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being done, on a terminal only.

    Args:
        first: what is shown until it is called.
        then: what is shown from then on, with `{}` for what it is called with.
    """
    with Console(stderr=True).status(first) as status:
        yield lambda step: status.update(then.format(step))


def check_csv(path: str | Path, beginning: str) -> Path:
    """Return where a table may be written, before anything is computed.

    Args:
        path: what out= says.
        beginning: of such a table's first line; only a file that begins so is written over.

    Raises:
        InputError: no `.csv`, a folder, a file that is something else, or no place to write.
    """
    with _naming(path):
        file = Path(path).expanduser()
        if file.suffix != ".csv" or file.is_dir():
            raise InputError(f"out={path}: a file name that ends in .csv is needed")
        if file.exists() and not file.read_bytes().startswith(beginning.encode()):
            raise InputError(f"out={path}: exists and holds something else; give another name")
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):  # root may write anywhere, says os.access, even to /proc
            return file


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table.

    Raises:
        InputError: the file cannot be written.
    """
    with _naming(path):
        write_bytes(path, frame.to_csv(index=False).encode())


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turn an error of the file system into one that names what was typed, never a temporary file."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: `~nobody` has no home
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"out={path}: cannot be written ({reason})") from error
