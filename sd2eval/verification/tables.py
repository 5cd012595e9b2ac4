"""What is made from shards: tables, figure, contact sheets; and what engines and killed processes left."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sd2eval import evaluate, events, run_tables
from sd2eval.plan import Block, Cell
from sd2eval.precision import Finish
from sd2eval.records import EmissionRow, RunInfo, Score
from sd2eval.store import CLAIMS, FAILED, TEMPORARY, RunFolder
from sd2eval.transfer.digests import MISSING
from sd2eval.verification.findings import Finding
from sd2eval.verification.png import png_fault
from sd2eval.verification.shards import Checked

TOLERANCE = 1e-9
"""Relative, of a value: another processor sums in another order, which moved a FID by 4e-12."""
LOOSER = 1e-6
"""Relative, of a standard error, which moved by 2e-8 where there were fewer images than dimensions."""
SMALLEST = 1e-12
"""Difference of two standard errors that is none: of scores that do not vary it is mere round-off."""
EXACT = ("n", "direction", "unit", "protocol")
TEXTS = dict.fromkeys(("checkpoint", "metric", "direction", "unit", "protocol"), str)
ENERGY_TEXTS = ("checkpoint", "guidance_scale", "stage", "method", "grid")
ENERGY = ("seconds", "kwh", "kg_co2")
Rows = dict[tuple[str, float, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Tables:
    """What was written of a run's scores at one moment; a sweep that goes on may write it again."""

    index: bytes | None
    csv: bytes | None
    json: bytes | None
    ended: bool
    """`run_tables.ended`."""

    @property
    def rows(self) -> dict[str, tuple[bytes | None, Rows]]:
        """By name, what a table of scores is and what can be read of it."""
        return {
            "results.csv": (self.csv, _csv_rows(self.csv or b"")),
            "results.json": (self.json, _json_rows(self.json or b"")),
        }


def read(store: RunFolder) -> Tables:
    """Return the tables of a run as they are now."""
    index, csv, as_json = (
        _raw(store.path / name) for name in (run_tables.INDEX, "results.csv", "results.json")
    )
    return Tables(index, csv, as_json, run_tables.ended(store))


def _raw(file: Path) -> bytes | None:
    """Return a file's bytes; None where there is none, nothing where it cannot be read."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return b""


def needed(then: Tables, info: RunInfo, captions: int) -> dict[Cell, int]:
    """Return how many captions must have been drawn of each cell whose results were written."""
    valid: dict[Cell, int] = {}
    for _, rows in then.rows.values():
        for (checkpoint, scale, _), row in rows.items():
            cell = Cell(checkpoint, scale)
            valid[cell] = max(valid.get(cell, 0), int(row["n"]))
    found = {}
    for cell, n in valid.items():
        if cell.checkpoint not in evaluate.checkpoint_names(info) or not captions:
            continue
        schedule = Finish.of(info.config, captions, evaluate.planned_metrics(info, cell.checkpoint)).schedule
        # n leaves invalid images out.
        found[cell] = next((look for look in schedule if look >= n), captions)
    return found


def _csv_rows(raw: bytes) -> Rows:
    try:
        frame = pd.read_csv(io.BytesIO(raw), dtype=TEXTS, keep_default_na=False, na_values=["nan"])
        return _by_key([{str(key): value for key, value in row.items()} for row in frame.to_dict("records")])
    except (ValueError, KeyError, TypeError):
        return {}


def _json_rows(raw: bytes) -> Rows:
    try:
        return _by_key(json.loads(raw)["scores"])
    except (ValueError, KeyError, TypeError):
        return {}


def _by_key(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Return scores by cell and metric.

    Raises:
        KeyError: a column is missing.
        ValueError: a number is none.
    """
    found = {}
    for row in rows:
        one = {name: row[name] for name in Score.__dataclass_fields__}
        one |= {name: float(one[name]) for name in ("guidance_scale", "value", "stderr")}
        key = (str(one["checkpoint"]), one["guidance_scale"], str(one["metric"]))
        found[key] = one | {"n": int(one["n"])}
    return found


def check_index(store: RunFolder) -> list[Finding]:
    """Return what is wrong with the files of the last report that ended; without one, nothing is known."""
    found = run_tables.look(store)
    faults = found.faults if found else {}
    return [Finding(path=name, what=what, part="table") for name, what in faults.items()]


def check_results(store: RunFolder, info: RunInfo, then: Tables) -> Iterator[Finding]:
    """Yield where `results.csv` and `results.json` are not what the shards give, computed again.

    Args:
        store: the run.
        info: its record.
        then: its tables as they were before its shards were listed.

    Raises:
        InputError: a shard is damaged, or a metric is undefined on its features.
    """
    scores = [one.score for one in evaluate.measure(store, info)] if store.has("reference.npz") else []
    right = _by_key([asdict(score) for score in scores])
    for name, (raw, rows) in then.rows.items():
        if raw is None:
            what = "not written yet" + ("; `report` or the sweep writes it" if right else "")
            yield Finding(path=name, what=what, part="table", state="unfinished")
        elif not rows and right and not _empty(raw):
            yield Finding(path=name, what="is damaged: not a table of scores", part="table")
        else:
            yield from _compare(name, rows, right, set(evaluate.unknown_metrics(info)))


def _empty(raw: bytes) -> bool:
    """Whether a table says, readably, that no cell was finished."""
    return raw.strip() == ",".join(Score.__dataclass_fields__).encode() or b'"scores": []' in raw


def _compare(name: str, rows: Rows, right: Rows, unknown: set[str]) -> Iterator[Finding]:
    for (checkpoint, scale, metric), row in rows.items():
        wanted = right.get((checkpoint, scale, metric))
        where = f"{metric} of {checkpoint} at scale {scale:g}"
        if wanted is None and metric not in unknown:
            yield Finding(path=name, what=f"has {where}, which the shards do not give", part="table")
        elif wanted is not None and not _same(row, wanted):
            shown = f"{row['value']} ± {row['stderr']}, n {row['n']}"
            right_one = f"{wanted['value']} ± {wanted['stderr']}, n {wanted['n']}"
            yield Finding(path=name, what=f"{where} is {shown}; the shards give {right_one}", part="table")
    late = len(right.keys() - rows.keys())
    if late:
        what = f"not up to date: lacks {late} of {len(right)} scores that the shards give"
        yield Finding(path=name, what=what, part="table", state="unfinished")


def _same(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two scores are one; a value near 0 is held against its standard error."""
    value, stderr = wanted["value"], wanted["stderr"]
    return (
        all(row[key] == wanted[key] for key in EXACT)
        and math.isclose(row["value"], value, rel_tol=TOLERANCE, abs_tol=TOLERANCE * abs(stderr))
        and math.isclose(row["stderr"], stderr, rel_tol=LOOSER, abs_tol=SMALLEST)
    )


def check_emissions(store: RunFolder, info: RunInfo) -> Iterator[Finding]:
    """Yield where `emissions.csv` of a finished run is not what shards and sessions add up to."""
    right = [asdict(row) for row in evaluate.emissions(store, info)]
    file = store.path / "emissions.csv"
    try:
        frame = pd.read_csv(
            file, dtype=dict.fromkeys(ENERGY_TEXTS, str), keep_default_na=False, na_values=["nan"]
        )
        rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
        same = list(frame.columns) == list(EmissionRow.__dataclass_fields__) and len(rows) == len(right)
        same = same and all(map(_same_energy, rows, right))
    except FileNotFoundError:
        yield Finding(path="emissions.csv", what=MISSING, part="table")
        return
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        what = "is not what the shards and sessions add up to"
        yield Finding(path="emissions.csv", what=what, part="table")


def _same_energy(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a row as read, its scale a text that is empty for no cell, is the one that was computed."""
    scale = float(row["guidance_scale"]) if row["guidance_scale"] else None
    return (
        scale == wanted["guidance_scale"]
        and all(row[key] == wanted[key] for key in ENERGY_TEXTS if key != "guidance_scale")
        and all(math.isclose(row[key], wanted[key], rel_tol=TOLERANCE) for key in ENERGY)
    )


def check_sheets(store: RunFolder, info: RunInfo, checked: Sequence[Checked]) -> Iterator[Finding]:
    """Yield what is wrong with the contact sheets, which come with the first shard of a checkpoint."""
    for one in checked:
        if one.place.block.first != 0 or not one.scales:
            continue
        name = one.place.checkpoint
        file = store.sheet(name)
        kept = store.read_manifest(name, one.place.block).get("kept", info.config["images"])
        fault = png_fault(file)
        if fault and (kept != "none" or fault != MISSING):
            path = file.relative_to(store.path).as_posix()
            yield Finding(path=path, what=fault, part="sheet", shard=one.place.key)


def leftovers(store: RunFolder) -> Iterator[Finding]:
    """Yield what killed processes left half-written; the next sweep removes it."""
    for path in store.half_written():
        name = path.relative_to(store.path).as_posix()
        what = f"half-written by a process that was killed ({TEMPORARY}*); the next sweep removes it"
        yield Finding(path=name, what=what, part="extra", state="left over")
    _, torn = events.read(store.path)
    if torn:
        what = f"{torn} lines cannot be read (a disk was full, or a machine lost power); nothing needs them"
        yield Finding(path=events.FILE, what=what, part="extra", state="left over")
    if any((store.path / CLAIMS).glob("*/*")):
        what = "who makes which shard: of a sweep that goes on, or was killed; the next one removes it"
        yield Finding(path=CLAIMS, what=what, part="extra", state="left over")


def given_up(store: RunFolder) -> Iterator[Finding]:
    """Yield the shards that an engine gave up and nobody has made since."""
    for file in sorted(store.path.glob(f"{FAILED}/*.json")):
        path = file.relative_to(store.path).as_posix()
        try:
            record = json.loads(file.read_bytes())
            shard = f"{record['checkpoint']}/{Block(*record['captions']).key}"
            what = f"{shard} was given up after {record['attempts']} tries ({record['reason']})"
        except (OSError, ValueError, KeyError, TypeError):
            shard, what = "", "a shard was given up; its record cannot be read"
        if not shard or not (store.path / "shards" / shard).exists():
            what += "; the next sweep tries it again"
            yield Finding(path=path, what=what, part="extra", state="unfinished")
