"""What the 95% interval of each metric is about, and where it does not hold what it says.

Measured by `benchmarks/coverage.py`, table in docs/uncertainty.md; the benchmark fails when a metric without
a note covers less than 92% or more than 98% at n >= 200. The reference is fixed in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sd2eval.errors import InputError


@dataclass(frozen=True, slots=True)
class Claim:
    """What an interval value -+ 1.96 standard errors is meant to cover in 95 of 100 studies."""

    about: Literal["expected value at this n", "population value"]
    """Biased estimators have intervals about what they would give on average with as many samples."""
    approximate: str = ""
    """Where the interval covers something else than 92-98% at n >= 200, in words; empty: nowhere seen."""


_AT_N: Literal["expected value at this n"] = "expected value at this n"
_POPULATION: Literal["population value"] = "population value"
_FEW_SAMPLES = "centred on the population value only where n is at least 3 d, far from it below n = d"

CLAIMS: dict[str, Claim] = {
    "frechet_distance": Claim(_AT_N),
    "frechet_debiased": Claim(_POPULATION, _FEW_SAMPLES),
    "frechet_infinity": Claim(_POPULATION, "centred on the population value only where n is at least 8 d"),
    "kernel_distance": Claim(_POPULATION),
    "clip_mmd": Claim(_AT_N),
    "precision": Claim(_POPULATION),
    "density": Claim(_POPULATION),
    "recall": Claim(_AT_N, "too wide: the standard error is about twice the real one"),
    "coverage": Claim(
        _AT_N, "too wide where most balls are filled: the standard error is up to 1.5 times the real"
    ),
    "mean_cosine": Claim(_POPULATION),
    "mean_of_images": Claim(_POPULATION, "too narrow for rare events: fewer than 20 images that differ"),
    "inception_score": Claim(_AT_N),
}
"""By the name of the function that returns the estimate."""


def claim(function: str) -> Claim:
    """Return what the interval of a metric function is about.

    Args:
        function: its name, such as "frechet_distance".

    Raises:
        InputError: no such function has been measured.
    """
    if function not in CLAIMS:
        raise InputError(
            f"nothing is known about the interval of {function!r}; measured: {', '.join(CLAIMS)}"
        )
    return CLAIMS[function]
