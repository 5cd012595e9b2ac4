"""Measuring and tabulating how often intervals cover the truth, for benchmarks/coverage.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from populations import CAPTIONS_PER_IMAGE

from sd2eval.metrics.claims import claim
from sd2eval.statistics import Estimate, interval, standard_error

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]
SIZES = (50, 200, 500, 2000)


class Study(NamedTuple):
    """One metric on one population."""

    name: str
    d: int
    draw: Draw
    metric: Callable[[Array], Estimate]
    truth: float | None
    """For infinitely many samples against the fixed reference; None where only the value at n is meant."""
    repetitions: tuple[int, ...] = (2000, 2000, 1000, 1000)
    """For each of SIZES; 0 leaves a size out."""
    clustered: bool = False


class Result(NamedTuple):
    repetitions: int
    mean: float
    spread: float
    claimed: float
    at_n: float
    population: float | None


def measure(study: Study, n: int, repetitions: int, grouped: bool) -> Result:
    rng = np.random.default_rng([n, study.d, len(study.name)])
    groups = np.arange(n) // CAPTIONS_PER_IMAGE if grouped else None
    estimates = [study.metric(study.draw(rng, n)) for _ in range(repetitions)]
    values = np.array([estimate.value for estimate in estimates])
    errors = np.array([standard_error(estimate.influence, groups) for estimate in estimates])
    mean = float(values.mean())
    claimed = float(np.sqrt(np.square(errors).mean()))
    population = None if study.truth is None else covered(values, errors, study.truth)
    return Result(
        repetitions, mean, float(values.std(ddof=1)), claimed, covered(values, errors, mean), population
    )


def covered(values: Array, errors: Array, truth: float) -> float:
    ends = [interval(value, error) for value, error in zip(values, errors, strict=True)]
    return float(np.mean([low <= truth <= high for low, high in ends]))


HEAD = (
    "| metric | d | n | runs | bias / error | claimed / real error | at n | population | verdict |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(study: Study, n: int, result: Result) -> str:
    bias = "" if study.truth is None else f"{(result.mean - study.truth) / result.spread:+.2f}"
    shares = [percent(share, result.repetitions) for share in (result.at_n, result.population)]
    ratio = result.claimed / result.spread
    judged = verdict(study, n, result)
    cells = [study.name, study.d, n, result.repetitions, bias, f"{ratio:.2f}", *shares, judged]
    return "| " + " | ".join(map(str, cells)) + " |"


def verdict(study: Study, n: int, result: Result) -> str:
    """Say whether the interval covers what it is about in 92-98%, beyond two Monte Carlo errors."""
    about = claim(study.name.partition(",")[0]).about
    share = result.population if about == "population value" else result.at_n
    assert share is not None
    slack = 2 * monte_carlo_error(share, result.repetitions)
    if n < 200:
        return ""
    if share + slack < 0.92:
        return "narrow"
    return "wide" if share - slack > 0.98 else "holds"


def monte_carlo_error(share: float, repetitions: int) -> float:
    """Return the standard error of a share; of 0% or 100% that of one run in two otherwise."""
    least = 0.5 / repetitions
    return float(np.sqrt(max(share * (1 - share), least * (1 - least)) / repetitions))


def percent(share: float | None, repetitions: int) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.1f} ± {100 * monte_carlo_error(share, repetitions):.1f}"
