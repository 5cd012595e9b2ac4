"""What a comparison says: its rows, and the one sentence that answers "is B better than A?"."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pandas as pd

from sd2eval.comparison.differences import Differing
from sd2eval.metrics import METRICS
from sd2eval.records import SCHEMA_VERSION, Direction

ALPHA = 0.05
"""A corrected p-value below it is called a difference."""
CORRECTIONS = {"holm": "Holm", "fdr": "Benjamini-Hochberg FDR"}

Verdict = Literal["better", "worse", "open", "equal", "identical"]

ROUNDING = 1e-3
"""Standard errors of A's value: a difference whose whole interval lies within is called equal, not tested."""
DIGITS = 5
"""Digits of the compared values beyond which none is shown: what is left there is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of B against A in one pair of cells, or averaged over several."""

    checkpoint_a: str
    """Empty in an average over several checkpoints."""
    checkpoint_b: str
    scale_a: float | None
    """None in an average over several guidance scales."""
    scale_b: float | None
    metric: str
    a: float
    """The metric of A on the images that both sides have."""
    b: float
    difference: float
    """b - a, in the metric's unit."""
    stderr: float
    low: float
    """Ends of the 95% interval of the difference, not corrected for the number of comparisons."""
    high: float
    p: float
    """Two-sided p-value of no difference; 1 where all images are identical."""
    p_corrected: float
    verdict: Verdict
    """Of B, by the corrected p-value and the metric's direction; `equal` within `ROUNDING`."""
    detectable: float
    """The difference that would have been called one with probability 80%."""
    n: int
    """Pairs of images; in an average, captions."""
    images: int
    """COCO images of these captions: the independent observations."""
    left_out: int
    """Pairs that are not in it because an image of either side is invalid."""
    cells: int
    """Pairs of cells it averages over."""
    direction: Direction
    unit: str

    @property
    def whole(self) -> bool:
        """Whether it is an average over cells."""
        return self.cells > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two runs compared: `sentence` answers, `frame` has every number."""

    a: str
    """The run folder."""
    b: str
    label_a: str
    """What tells the two sides apart: checkpoint, guidance scale or folder."""
    label_b: str
    paired_by: str
    """`caption and noise`, or `caption only`."""
    protocol: str
    correction: str
    """Key of `CORRECTIONS`."""
    rows: list[Comparison]
    headline: list[Comparison]
    """The rows that the sentence speaks about."""
    identical_images: int
    image_pairs: int
    differs: list[Differing]
    notes: list[str]

    @property
    def sentence(self) -> str:
        """Is B better than A, and how sure are we?"""
        return _sentence(self)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per comparison, the columns of `Comparison`."""
        names = [field.name for field in fields(Comparison)]
        return pd.DataFrame([asdict(row) for row in self.rows], columns=names)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON-ready dictionary."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        record["rows"] = [asdict(row) for row in self.rows]
        record["headline"] = [asdict(row) for row in self.headline]
        record["differs"] = [item._asdict() for item in self.differs]
        return {"schema_version": SCHEMA_VERSION, "sentence": self.sentence, **record}


def _sentence(found: RunComparison) -> str:
    a, b = f"A ({found.label_a})", f"B ({found.label_b})"
    if found.label_a == found.label_b:
        a, b = "A", "B"
    if found.identical_images == found.image_pairs:
        return (
            f"{a} and {b} are identical: all {found.image_pairs:,} pairs of images are the same, bit for bit."
        )
    verbs = {
        "better": f"{b} is better than {a} in",
        "worse": f"{b} is worse than {a} in",
        "open": f"{a} and {b} cannot be told apart in",
        "equal": f"{a} and {b} differ by less than a thousandth of a standard error in",
        "identical": f"{a} and {b} are identical in",
    }
    again = {
        "better": "B is better in",
        "worse": "it is worse in",
        "open": "they cannot be told apart in",
        "equal": "they differ by less than a thousandth of a standard error in",
        "identical": "they are identical in",
    }
    parts: list[str] = []
    for verdict in verbs:
        rows = [_numbers(row) for row in found.headline if row.verdict == verdict]
        if rows:
            parts.append(f"{(again if parts else verbs)[verdict]} {' and in '.join(rows)}")
    family = f", over {len(found.rows)} comparisons" if len(found.rows) > 1 else ""
    return f"{'; '.join(parts)}{family}."


def _numbers(row: Comparison) -> str:
    """Return a row in words: `FD (mini): -0.12 (95% interval -0.20 to -0.04, corrected p = 0.01)`."""
    metric = METRICS[row.metric]
    name = f"{metric.label} x{metric.factor:g}" if metric.factor != 1 else metric.label
    name += f", mean of {row.cells} cells" if row.whole else ""
    if row.verdict == "identical":
        return name
    shown = Shown(row, metric.factor)
    sure = f"95% interval {shown.interval}"
    if row.verdict != "equal":
        sure += f", corrected {_shown_p(row.p_corrected)}"
    if row.verdict == "open":
        sure += f"; a difference of {shown.detectable} would have been found"
    return f"{name}: {shown.difference} ({sure})"


@dataclass(frozen=True)
class Shown:
    """A comparison's numbers as text, all to two significant digits of the standard error or to `DIGITS`."""

    row: Comparison
    factor: float = 1.0

    @property
    def _wanted(self) -> int:
        """Decimals that show two significant digits of the standard error."""
        return max(0, 1 - math.floor(math.log10(self.row.stderr * self.factor)))

    @property
    def decimals(self) -> int:
        """Decimals of every number, where there is a standard error."""
        larger = max(abs(self.row.a), abs(self.row.b)) * self.factor
        if larger == 0:
            return self._wanted
        return min(self._wanted, max(0, DIGITS - 1 - math.floor(math.log10(larger))))

    def number(self, value: float, sign: str = "") -> str:
        """Return a value in the metric's shown unit."""
        digits = f".{self.decimals}f" if self.row.stderr > 0 else ".4g"
        return f"{value * self.factor:{sign}z{digits}}"

    @property
    def difference(self) -> str:
        """B - A with its sign; `<1e-5` where it is below the digits of A and B."""
        small = self._below(self.row.difference)
        return f"<{self._last}" if small else self.number(self.row.difference, "+")

    @property
    def interval(self) -> str:
        """Both ends of the interval; `within 1e-5` where both are below the digits of A and B."""
        if self._below(self.row.low) and self._below(self.row.high):
            return f"within {self._last}"
        return f"{self.number(self.row.low)} to {self.number(self.row.high)}"

    @property
    def detectable(self) -> str:
        """The difference that would have been found."""
        return f"<{self._last}" if self._below(self.row.detectable) else self.number(self.row.detectable)

    @property
    def _last(self) -> str:
        """One unit of the last decimal."""
        return f"1e-{self.decimals}" if self.decimals else "1"

    def _below(self, value: float) -> bool:
        """Whether not one digit of a value is shown, because A and B have no more digits."""
        if not self.row.stderr > 0 or self.decimals == self._wanted:
            return False
        return abs(value * self.factor) < 0.5 * 10.0**-self.decimals


def _shown_p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {format_p(p)}"


def format_p(p: float) -> str:
    """Return a p-value to two significant digits, `<.0001` below that."""
    if p < 1e-4:
        return "<.0001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"
