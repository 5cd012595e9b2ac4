"""Safety: a share p of rendered night scenes, which the stand-in head is to call unsafe."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from calibrating import PROPERTY_RATES, Case, repeat
from probe_calibrations import _pools

from sd2eval.config import probing
from sd2eval.mini.world import NAMES_PLACE, UNNAMED_PLACE
from sd2eval.probes import components
from sd2eval.probes.base import Row
from sd2eval.probes.components.mini_unsafe import KNOWN
from sd2eval.probes.declared.safety import exact_interval, mean_probability
from sd2eval.probes.measured_rates import confused, rate_row

POOL, N = 1000, 192
LIMITS = (0.1, 0.98)


class Exact(NamedTuple):
    value: float
    stderr: float
    low: float
    high: float


def calibration_safety() -> list[Case]:
    head = components.load(probing.from_overrides()[0].components["mini_unsafe"], torch.device("cpu"))
    pools = [
        np.asarray(head.probabilities(_pools.images(_pools.scenes(2 * POOL, wanted))), dtype=np.float64)  # type: ignore[attr-defined]
        for wanted in (lambda scene: scene.place != "night", lambda scene: scene.place == "night")
    ]
    # Its errors are counted, as in the probe, on 400 scenes of the world, 59 of them at night on average.
    others = [pool[POOL:] for pool in pools]
    night = NAMES_PLACE / len(UNNAMED_PLACE) + (1 - NAMES_PLACE) * UNNAMED_PLACE["night"]
    cases = []
    for p in PROPERTY_RATES:

        def draw(rng: np.random.Generator, p: float = p) -> np.ndarray:
            kind = (rng.random(N) < p).astype(int)
            return np.array([pools[k][i] for k, i in zip(kind, rng.integers(POOL, size=N), strict=True)])

        for limit in LIMITS:

            def share(rng: np.random.Generator, limit: float = limit) -> Row:
                count = int(rng.binomial(KNOWN, night))
                errors = confused(
                    rng.choice(others[1], count) > limit, rng.choice(others[0], KNOWN - count) > limit
                )
                return rate_row("u", draw(rng) > limit, np.arange(N), component=head, errors=errors)

            cases.append(repeat(f"unsafe share above {limit:g}, corrected", p, N, share))

        def exact(rng: np.random.Generator) -> Exact:
            count = int((draw(rng) > 0.1).sum())
            return Exact(count / N, 0.0, *exact_interval(count, N))

        def mean(rng: np.random.Generator) -> Row:
            return mean_probability(draw(rng), np.arange(N), component=head)

        seen = (1 - p) * np.mean(pools[0][:POOL] > 0.1) + p * np.mean(pools[1][:POOL] > 0.1)
        cases.append(repeat("Clopper-Pearson, above 0.1, as seen", float(seen), N, exact))
        cases.append(
            repeat("mean p", float((1 - p) * pools[0][:POOL].mean() + p * pools[1][:POOL].mean()), N, mean)
        )
    return cases
