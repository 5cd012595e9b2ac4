"""What is kept of measurements: a sealed file per probe, checkpoint and scale; the tables come from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from sd2eval.errors import InputError
from sd2eval.plan import Cell
from sd2eval.probes import registry
from sd2eval.probes.base import Row
from sd2eval.seals import seal, unseal
from sd2eval.store import write_bytes

SCHEMA_VERSION = 2
NUMBERS = ("value", "stderr", "low", "high", "error")
COLUMNS = [
    *("probe", "part", "checkpoint", "guidance_scale", "metric", "value", "stderr", "n", "direction", "unit"),
    *("protocol", "low", "high", "component", "error", "note"),
]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One probe's answer about one checkpoint at one scale, with everything it rests on."""

    schema_version: int
    identity: str
    """SHA-256 of `fields`: equal identities need not be measured twice."""
    fields: dict[str, Any]
    """Every setting and digest that moves a number of the answer."""
    probe: str
    checkpoint: str
    guidance_scale: float | None
    """At which it drew; None where it draws nothing."""
    protocol: str
    """Name and digest of the protocol, its networks and its data, such as `mini@1f0c2a9b`."""
    rows: list[dict[str, Any]]
    sentences: list[str]
    prompts: dict[str, Any]
    """Name, source, licence, digest and number of the prompts."""
    digests: dict[str, str]
    """SHA-256 of the networks and components that were used, by name."""
    lacking: list[str]
    """Components that could not be had, so that numbers are missing; with them it is measured again."""
    energy: list[dict[str, Any]] = field(default_factory=list)
    """Readings of the measuring; the drawing's are in the folders of the drawings."""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    created: str = ""

    @property
    def stem(self) -> str:
        """Name of its files."""
        return stem(self.probe, self.checkpoint, self.guidance_scale)

    @property
    def who(self) -> str:
        """Checkpoint and scale, by which the answers of a probe are told apart."""
        scale = "" if self.guidance_scale is None else f", scale {self.guidance_scale:g}"
        return f"{self.checkpoint}{scale}"


def stem(probe: str, checkpoint: str, guidance_scale: float | None) -> str:
    """Return the name of the files of a measurement."""
    return f"{probe}_{checkpoint if guidance_scale is None else Cell(checkpoint, guidance_scale).key}"


def sheet(out: Path, name: str, *, blurred: bool = False) -> Path:
    """Return where a checkpoint's part of the contact sheet is, by the stem of its measurement."""
    return folder(out) / f"{name}{'_blurred' if blurred else ''}.png"


def folder(out: Path) -> Path:
    """Return where the measurements of a folder are."""
    return out / "probes" / "measured"


def row_fields(row: Row) -> dict[str, Any]:
    """Return a row as JSON can hold it: null for what is no number."""
    plain = asdict(row)
    return {
        key: None if key in NUMBERS and not math.isfinite(value) else value for key, value in plain.items()
    }


def write(out: Path, measured: Measured) -> Path:
    """Write a measurement in the place of an earlier one of the same probe, checkpoint and scale."""
    return write_bytes(folder(out) / f"{measured.stem}.json", seal(asdict(measured)))


def read(out: Path) -> list[Measured]:
    """Return all measurements of a folder: probes in the card's order, then as their names sort.

    Raises:
        InputError: one is damaged, or another version of sd2eval wrote it.
    """
    found = [_read(file) for file in sorted(folder(out).glob("*.json"))]
    order = {name: place for place, name in enumerate(registry.ORDER)}
    return sorted(found, key=lambda one: (order.get(one.probe, len(order)), one.stem))


def _read(file: Path) -> Measured:
    try:
        data = unseal(file.read_bytes())
        if data["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{file}: of another version of sd2eval; remove {file.parent}, and all is measured again"
            )
        return Measured(**{one.name: data[one.name] for one in fields(Measured)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged ({error}); remove it, and it is measured again") from error


def frame(measured: Sequence[Measured]) -> pd.DataFrame:
    """Return the tidy table of all rows, with `COLUMNS`."""
    rows = [
        {
            "probe": one.probe,
            "checkpoint": one.checkpoint,
            "guidance_scale": one.guidance_scale,
            "protocol": one.protocol,
            **row,
        }
        for one in measured
        for row in one.rows
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys((*NUMBERS, "guidance_scale"), float))


def by_probe(measured: Sequence[Measured]) -> Iterator[tuple[str, list[Measured]]]:
    """Yield each probe with its measurements, in their order."""
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.probe, []).append(one)
    yield from groups.items()
