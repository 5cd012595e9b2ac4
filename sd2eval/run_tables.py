"""The tables of a run folder as its last report left them: none is read that is not what was written."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sd2eval import front
from sd2eval.errors import InputError
from sd2eval.records import EmissionRow, RunInfo, Score
from sd2eval.seals import unseal
from sd2eval.store import DIGESTS, WAY_OUT, RunFolder
from sd2eval.transfer.digests import MISSING, file_digest, read_checked

INDEX = "report.json"
"""Sealed: the SHA-256 of every file that a report writes."""
ALWAYS = ("results.csv", "results.json", "emissions.csv")
"""What every report writes."""
TABLES = (*ALWAYS, "pareto.csv")


@dataclass(frozen=True)
class Run:
    """A run folder; its tables are what they were when it was opened."""

    path: Path
    info: RunInfo
    tables: Mapping[str, bytes] = field(repr=False)
    """By file name."""

    @cached_property
    def results(self) -> pd.DataFrame:
        """Scores, tidy: the columns of `Score`, one row per cell and metric."""
        return self._frame("results.csv", [one.name for one in fields(Score)])

    @cached_property
    def unscored(self) -> list[dict[str, Any]]:
        """Scores that finished cells lack, as fields of `evaluate.Unscored`."""
        return list(_scores(self.path, self.tables["results.json"]).get("unscored", []))

    @cached_property
    def emissions(self) -> pd.DataFrame:
        """Energy by cell and stage: the columns of `EmissionRow`."""
        columns = [one.name for one in fields(EmissionRow)]
        return self._frame("emissions.csv", columns, keep_default_na=False, na_values=[""])

    @cached_property
    def front(self) -> pd.DataFrame:
        """The Pareto front with its uncertainty: the columns of `pareto.csv`; no rows where there is none."""
        if "pareto.csv" not in self.tables:
            return pd.DataFrame(columns=front.COLUMNS)
        return self._frame("pareto.csv", front.COLUMNS)

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """The prompts in order: caption_id, image_id, image_file, text."""
        return pd.DataFrame(RunFolder(self.path).read_prompts())

    def _frame(self, name: str, columns: Sequence[str], **options: Any) -> pd.DataFrame:
        """Return a table; one of a run from before there were digests may be damaged."""
        try:
            frame: pd.DataFrame = pd.read_csv(io.BytesIO(self.tables[name]), **options)
        except ValueError as error:
            raise _refused(self.path / name, f"is damaged: {error}") from error
        if not set(columns) <= set(frame.columns):
            raise _refused(self.path / name, "is damaged: it has other columns")
        return frame


def _refused(file: Path, fault: str) -> InputError:
    return InputError(f"{file}: {' '.join(fault.split())}; {WAY_OUT.format(file.parent)}")


def _scores(run: Path, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
        if not isinstance(found["scores"], list):
            raise TypeError("no list of scores")
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(run / "results.json", f"is damaged: {error}") from error
    return found  # type: ignore[no-any-return]


# Whether they are there


def ended(store: RunFolder) -> bool:
    """Whether tables and figure were written to the end; the first version of the package wrote no index."""
    return store.has("results.csv") and (store.has(INDEX) or not store.has(DIGESTS))


def reopen(store: RunFolder) -> None:
    """Say that tables and figure are to be written anew: where the index is, they are whole and add up."""
    (store.path / INDEX).unlink(missing_ok=True)


def close(store: RunFolder, files: Iterable[Path]) -> None:
    """Say that these files are all that a report wrote, and whole."""
    store.write_sealed(INDEX, {"files": {file.name: file_digest(file) for file in files}})


def inputs(store: RunFolder) -> str:
    """Return a digest of what a report is computed from: shards, sessions, captions."""
    files = [store.path / name for name in ("run.json", DIGESTS, "prompts.json")]
    for pattern in ("sessions/*.json", "shards/*/[!.]*/manifest.json"):
        files += sorted(store.path.glob(pattern))
    total = hashlib.sha256()
    for file in files:
        raw, fault = read_checked(file)
        total.update(f"{file}: {fault or hashlib.sha256(raw).hexdigest()}\n".encode())
    return total.hexdigest()


# What is in them


@dataclass(frozen=True)
class Written:
    """The files of the last report that ended."""

    files: dict[str, bytes]
    """By name, those that are what was written."""
    faults: dict[str, str]
    """By name, what is wrong with the others."""


def look(store: RunFolder, names: Container[str] | None = None) -> Written | None:
    """Return what the last report that ended left, all of it or those names; None where there is no index."""
    while True:
        index, fault = read_checked(store.path / INDEX)
        if fault == MISSING:
            return None
        found = Written({}, {INDEX: fault}) if fault else _look(store, index, names)
        if not found.faults or read_checked(store.path / INDEX)[0] == index:
            return found  # else another report was written between the index and its files


def _look(store: RunFolder, index: bytes, names: Container[str] | None) -> Written:
    try:
        digests = unseal(index, required=True)["files"]
    except (ValueError, KeyError) as error:
        return Written({}, {INDEX: f"is damaged: {error}"})
    found = Written({}, {})
    for name, sha256 in digests.items():
        if names is None or name in names:
            raw, fault = read_checked(store.path / name, sha256)
            found.files.update({} if fault else {name: raw})
            found.faults.update({name: fault} if fault else {})
    return found


def read(store: RunFolder) -> dict[str, bytes] | None:
    """Return the tables of a run by their names; None where no report ended: they are to be written anew.

    Raises:
        InputError: one is not what was written.
    """
    if not ended(store):
        return None
    found = look(store, TABLES)
    if found is None:
        return None if store.has(DIGESTS) else _of_the_first_version(store)
    _require_whole(store, found)
    return found.files


def _require_whole(store: RunFolder, found: Written) -> None:
    for name, fault in found.faults.items():
        raise _refused(store.path / name, fault)


def _of_the_first_version(store: RunFolder) -> dict[str, bytes] | None:
    """Return the tables of a run without any digests; None where one is missing that every report writes."""
    files = {name: store.path / name for name in TABLES if store.has(name)}
    return {name: file.read_bytes() for name, file in files.items()} if set(ALWAYS) <= files.keys() else None


def written_scores(store: RunFolder) -> list[dict[str, Any]]:
    """Return the scores of `results.json`, also where its report did not end; none where it is not there.

    Raises:
        InputError: it is damaged.
    """
    name = "results.json"
    if not store.has(name):
        return []
    found = look(store, (name,))
    if found is not None:
        _require_whole(store, found)
    raw = (found.files if found else {}).get(name) or (store.path / name).read_bytes()
    return list(_scores(store.path, raw)["scores"])
