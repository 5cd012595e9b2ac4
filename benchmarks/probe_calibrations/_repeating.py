"""Many repetitions of a probe's estimate on pictures whose truth is known: bias and coverage.

What a component says of a pool of rendered pictures is computed once. A repetition draws pictures from the
pool, a share p of which have the property, and test pictures from which the component's errors are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from sd2eval.probes import proportions
from sd2eval.probes.measured_rates import confused, rate_row

TRUTHS = (0.0, 0.1, 0.5, 0.9, 1.0)
REPETITIONS = 1000
HEAD = "| component, pictures | errs in | n | p | mean - p | 95% interval covers |\n|---|---|---|---|---|---|"
EYE = SimpleNamespace(name="calibrated", digest="0" * 64)

Pool = Sequence[NDArray[np.bool_]]
"""Answers about each picture; several of a picture (its words) have one truth."""


def table(name: str, right: Pool, wrong: Pool, n: int, tests: int, seed: int = 0) -> list[str]:
    """Return a row per true rate.

    Args:
        name: of what is calibrated.
        right: answers about pictures that have the property.
        wrong: answers about pictures that have not.
        n: pictures of an estimate.
        tests: pictures of either kind on which the errors are measured.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    error = confused(np.concatenate(right), np.concatenate(wrong)).error
    rows = []
    for truth in TRUTHS:
        values, covered = [], 0
        for _ in range(REPETITIONS):
            estimate, low, high = _once(right, wrong, n, tests, truth, rng)
            values.append(estimate)
            covered += low - 1e-9 <= truth <= high + 1e-9
        bias, noise = np.mean(values) - truth, np.std(values) / np.sqrt(REPETITIONS)
        rows.append(
            f"| {name} | {error:.1%} | {n} | {truth:g} | {bias:+.4f} -+ {2 * noise:.4f} | "
            f"{covered / REPETITIONS:.1%} |"
        )
    return rows


def _once(
    right: Pool, wrong: Pool, n: int, tests: int, truth: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return an estimate before it is cut to 0..1, and the interval that a row has."""
    has = rng.random(n) < truth
    seen = [(right if one else wrong)[rng.integers(len(right if one else wrong))] for one in has]
    groups = np.repeat(np.arange(n), [len(one) for one in seen])
    errors = confused(_drawn(right, tests, rng), _drawn(wrong, tests, rng))
    found = np.concatenate(seen)
    row = rate_row("rate", found, groups, component=EYE, errors=errors, limit=0.5)
    plain = proportions.corrected(proportions.rate(found, groups), errors, clip=False)
    return plain.value, row.low, row.high


def _drawn(pool: Pool, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    return np.concatenate([pool[rng.integers(len(pool))] for _ in range(n)])


def singles(answers: NDArray[np.bool_]) -> Pool:
    """Return a pool of pictures with one answer each."""
    return [answers[i : i + 1] for i in range(len(answers))]
