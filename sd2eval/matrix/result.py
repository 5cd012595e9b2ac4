"""What a protocol matrix says: every value, how far each protocol moves it, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from sd2eval.matrix.ranks import Ranks
from sd2eval.metrics import METRICS
from sd2eval.records import SCHEMA_VERSION

AGREES = 1e-6
"""Relative difference up to which the run's own protocol is said to give the run's own results again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """The distance of one cell under one protocol, and against the first protocol."""

    checkpoint: str
    guidance_scale: float
    protocol: str
    metric: str
    value: float
    stderr: float
    n: int
    difference: float
    """value - that of the first protocol."""
    difference_stderr: float
    """From the same images on both sides, so far smaller than `stderr`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far one protocol moves the distance, against the first one."""

    protocol: str
    differs: list[str]
    """What it chooses otherwise than the run, as `key=value`."""
    not_varied: dict[str, list[str]]
    """What of that was decided before the PNGs were written, by key the checkpoints that it concerns."""
    mean: float
    """Over all cells."""
    mean_stderr: float
    largest: float
    """Difference of the cell that it moves most, with its sign."""
    largest_checkpoint: str
    largest_scale: float
    same_as: str
    """Earlier protocol with exactly the same values; empty where there is none."""
    weights: str
    """SHA-256 of its network."""
    reference: str
    """SHA-256 over all that the real images' features depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far apart protocols lie in one cell."""

    checkpoint: str
    guidance_scale: float
    value: float
    """Under the first protocol."""
    stderr: float
    lowest: float
    lowest_protocol: str
    highest: float
    highest_protocol: str

    @property
    def spread(self) -> float:
        """Highest minus lowest."""
        return self.highest - self.lowest

    @property
    def errors(self) -> float:
        """The spread in standard errors of the value; infinite where that has none."""
        return self.spread / self.stderr if self.stderr > 0 else math.inf * (self.spread > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Whether the run's own protocol gives what is in the run's results.csv."""

    compared: int
    """Cells; 0 where the run has no such results or its protocol could not be computed."""
    largest: float
    """Relative difference."""
    checkpoint: str
    guidance_scale: float

    @property
    def agrees(self) -> bool:
        """Whether the largest difference is round-off."""
        return self.largest <= AGREES


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolMatrix:
    """One run under several protocols: `sentence` answers, `frame` has every number."""

    run: str
    metric: str
    own: str
    """The run's protocol."""
    protocol: str
    """The run's protocol with its digest, as in the run's scores, such as `mini@1f0c2a9b`."""
    reference_n: int
    """Real images."""
    first: str
    """What the others are compared with: the run's own protocol where it can be computed."""
    values: list[Value]
    shifts: list[Shift]
    """By protocol, the first one first."""
    spreads: list[Spread]
    """By cell."""
    ranks: Ranks
    left_out: dict[str, str]
    """Protocols that cannot be computed on this run, with the reason."""
    agreement: Agreement
    notes: list[str]

    @property
    def first_words(self) -> str:
        """The first protocol's name, with its digest where it is the run's own."""
        return self.protocol if self.first == self.own else self.first

    @property
    def largest_shift(self) -> float:
        """How far the distance of any cell moves at most from the first protocol to another."""
        return max(abs(shift.largest) for shift in self.shifts)

    @property
    def widest(self) -> Spread:
        """The cell in which protocols are farthest apart."""
        return max(self.spreads, key=lambda spread: spread.spread)

    @property
    def mean_spread(self) -> float:
        """Over all cells."""
        return sum(spread.spread for spread in self.spreads) / len(self.spreads)

    @property
    def sentence(self) -> str:
        """How far does the protocol alone move the distance of this run?"""
        return _sentence(self)

    @property
    def reproduce_words(self) -> str:
        """What `reproduce` takes as the protocol spread; empty where it would mean nothing.

        The half-width of a band around the card's value, on both sides: whichever of these protocols the card
        was measured by, its value for these images is at most the largest shift away from that of the run's
        own. Half of the spread would be enough only for a run in the middle of it.
        """
        if self.metric != "fid" or self.first != self.own or len(self.shifts) < 2:
            return ""
        return f"protocol_spread.fid={math.ceil(100 * self.largest_shift) / 100:.2f}"

    @property
    def frame(self) -> pd.DataFrame:
        """One row per cell and protocol, the columns of `Value`."""
        return pd.DataFrame(
            [asdict(value) for value in self.values], columns=[field.name for field in fields(Value)]
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON-ready dictionary."""
        record = asdict(self)
        for spread, row in zip(self.spreads, record["spreads"], strict=True):
            row["spread"] = spread.spread
        return {
            "schema_version": SCHEMA_VERSION,
            "sentence": self.sentence,
            "largest_shift": self.largest_shift,
            "reproduce": self.reproduce_words,
            **record,
        }


def label(metric: str) -> str:
    """Return a metric's name with the factor that it is shown with."""
    entry = METRICS[metric]
    return f"{entry.label} x{entry.factor:g}" if entry.factor != 1 else entry.label


def grouped(left_out: Mapping[str, str]) -> list[str]:
    """Return each reason once, after the names of all protocols that it holds for."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(of_reason)}: {reason}" for reason, of_reason in names.items()]


def plain(value: float, sign: str = "") -> str:
    """Return three significant digits, all of an integer's, without an exponent down to a millionth."""
    if value == 0:
        return "0"
    if abs(value) < 1e-6:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def cell_words(checkpoint: str, scale: float) -> str:
    """Return a cell's name in sentences and tables."""
    return f"{checkpoint} at {scale:g}"


def _sentence(found: ProtocolMatrix) -> str:
    if len(found.shifts) < 2:
        return (
            f"Only one protocol can be computed on this run, {found.first_words}, so nothing is said about "
            f"how far {label(found.metric)} moves with the protocol."
        )
    widest, factor = found.widest, METRICS[found.metric].factor
    errors = f"{widest.errors:.1f} of its standard errors" if math.isfinite(widest.errors) else ""
    where = ", ".join(filter(None, [cell_words(widest.checkpoint, widest.guidance_scale), errors]))
    return (
        f"Protocol alone moves {label(found.metric)} of this run by up to {plain(widest.spread * factor)} "
        f"({where}), {plain(found.mean_spread * factor)} on average over {len(found.spreads)} cells."
    )
