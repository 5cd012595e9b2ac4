"""The table of published weights: what a file is called, what it is, its SHA-256, and where it can be had.

A digest names weights. A file name or a repository does not: 2.0 and 2.1 files share names, mirrors move.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.weights.first_use import remember as remember

TABLE = Path(__file__).with_name("published.csv")
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published weight file."""

    name: str
    kind: str
    """`checkpoint`, `depth` (estimator) or `extractor`."""
    version: str | None
    """Of Stable Diffusion: `1.5`, `2.0`, `2.1`."""
    describes: str
    """What it is, for messages: `Stable Diffusion 2.0 base (epsilon, 512 pixels)`."""
    file: str
    """Its path in the repository, or its name at `url`."""
    companions: tuple[str, ...]
    """Files of the same repository that are loaded with it."""
    prediction_type: str | None
    """`epsilon` or `v_prediction`."""
    resolution: int | None
    """Pixels."""
    in_channels: int | None
    """Of the UNet."""
    sha256: str | None
    """64 hexadecimal digits; None where none is published."""
    repository: str | None
    """Hub id where it is today."""
    former_repository: str | None
    """Hub id under which it was published."""
    url: str | None
    """Where it is, if not on the hub."""
    about_bytes: int | None
    """Parameters x 4 bytes; not the exact size."""
    study: str | None
    """The experiment that needs it."""
    use: str | None
    """What the command line says to use it; `{path}` and `{folder}` are where it lies."""

    @property
    def origin(self) -> str:
        """Hub id or address where it can be had; what its first-use digest is recorded under."""
        return self.repository or self.url or ""


@cache
def published(table: Path = TABLE) -> dict[str, Published]:
    """Return the published weights by name, in the order of the table.

    Args:
        table: a CSV file with the columns of the package's own.

    Raises:
        InputError: the table cannot be read, or a row has a wrong value; names the row.
    """
    try:
        lines = [line for line in table.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table}: not a readable table of weights ({error})") from error
    reader = csv.DictReader(lines, strict=True)
    missing = {field.name for field in fields(Published)} - set(reader.fieldnames or ())
    if missing:
        raise InputError(f"{table}: no table of weights: column {min(missing)} is missing")
    entries: dict[str, Published] = {}
    for row in reader:
        if row["name"] in entries:
            raise InputError(f"{table}: '{row['name']}' is in it twice")
        entries[row["name"]] = _entry(row, table)
    return entries


def by_digest(sha256: str, table: Path = TABLE) -> Published | None:
    """Return the published weights whose file has this SHA-256, or None."""
    return next((entry for entry in published(table).values() if entry.sha256 == sha256.lower()), None)


def mirror(former: str, table: Path = TABLE) -> str | None:
    """Return the repository that has today what a former one had, or None if it is not known as moved."""
    entries = published(table).values()
    moved = (entry.repository for entry in entries if entry.former_repository == former)
    return next((repository for repository in moved if repository and repository != former), None)


def file_digest(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: the file.
        on_bytes: called with how many bytes are done, after each MiB.

    Raises:
        InputError: the file cannot be read.
    """
    total, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                total.update(block)
                done += len(block)
                if on_bytes:
                    on_bytes(done)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return total.hexdigest()


def _entry(row: dict[str, str | None], table: Path) -> Published:
    """Check one row: this table decides which files are trusted."""

    def text(column: str) -> str | None:
        return (row[column] or "").strip() or None

    def needed(column: str) -> str:
        value = text(column)
        if value is None:
            raise InputError(f"{table}: '{row['name']}' has no {column}")
        return value

    def number(column: str) -> int | None:
        value = text(column)
        if value is not None and not value.isdecimal():
            raise InputError(f"{table}: {column} of '{row['name']}' is no whole number ({value})")
        return int(value) if value else None

    sha256 = text("sha256")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"{table}: sha256 of '{row['name']}' is not 64 lowercase hexadecimal digits")
    if bool(text("url")) == bool(text("repository")):
        raise InputError(f"{table}: '{row['name']}' needs a repository or a url, and not both")
    return Published(
        name=needed("name"),
        kind=needed("kind"),
        version=text("version"),
        describes=needed("describes"),
        file=needed("file"),
        companions=tuple((text("companions") or "").split()),
        prediction_type=text("prediction_type"),
        resolution=number("resolution"),
        in_channels=number("in_channels"),
        sha256=sha256,
        repository=text("repository"),
        former_repository=text("former_repository"),
        url=text("url"),
        about_bytes=number("about_bytes"),
        study=text("study"),
        use=text("use"),
    )
