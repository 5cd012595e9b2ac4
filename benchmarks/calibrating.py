"""Repeating an estimate whose truth is known, for benchmarks/probe_calibration.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

PROPERTY_RATES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""At which every probe is calibrated."""


class Estimated(Protocol):
    """What a repetition gives: a row, a share or anything else with a value and an interval."""

    @property
    def value(self) -> float: ...
    @property
    def stderr(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Many repetitions of one estimate at one truth."""

    what: str
    truth: float
    n: int
    repetitions: int
    mean: float
    spread: float
    """Standard deviation over the repetitions."""
    claimed: float
    """Root mean square of the standard errors."""
    coverage: float
    """Share of repetitions with a number whose interval holds the truth."""
    refused: int = 0
    """Repetitions without a number, because the component erred too often."""

    @property
    def bias_in_errors(self) -> float:
        """Bias over its own standard error: beyond about 3, it is there."""
        return (self.mean - self.truth) / max(self.spread / np.sqrt(self.repetitions), 1e-12)


def repeat(
    what: str,
    truth: float,
    n: int,
    draw: Callable[[np.random.Generator], Estimated],
    repetitions: int = 2000,
) -> Case:
    """Estimate `repetitions` times from one random stream, and compare with the truth.

    Args:
        what: is estimated, as the table calls it; it seeds the stream.
        truth: what it should give.
        n: images of a repetition.
        draw: one repetition.
        repetitions: how many.
    """
    rng = np.random.default_rng([*what.encode(), round(1000 * truth), n])
    found = [draw(rng) for _ in range(repetitions)]
    found = [one for one in found if not np.isnan(one.value)]
    values = np.array([one.value for one in found])
    ends = np.array([(one.low, one.high) for one in found])
    # An end may differ from the truth by round-off: 1 - 1e-16 must not exclude 1.
    held = (ends[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= ends[:, 1])
    return Case(
        what=what,
        truth=truth,
        n=n,
        repetitions=repetitions,
        mean=float(values.mean()),
        spread=float(values.std(ddof=1)),
        claimed=float(np.sqrt(np.mean(np.square([one.stderr for one in found])))),
        coverage=float(held.mean()),
        refused=repetitions - len(found),
    )


def table(cases: Sequence[Case]) -> str:
    """Return cases as a Markdown table."""
    lines = [
        "| what | truth | n | repetitions | mean | spread | claimed | coverage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in cases:
        lines.append(
            f"| {one.what} | {one.truth:.4g} | {one.n} | {one.repetitions - one.refused:,} | {one.mean:.4f} "
            f"| {one.spread:.4f} | {one.claimed:.4f} | {one.coverage:.1%} |"
        )
    return "\n".join(lines)
