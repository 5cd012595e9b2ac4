"""Photorealism: a share p of whole rendered scenes, the rest with their pieces shuffled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from calibrating import PROPERTY_RATES, Case, repeat, table
from probe_calibrations import _pools

from sd2eval.metrics.frechet import frechet_distance, frechet_reference, gaussian
from sd2eval.metrics.kernel import kernel_distance, kernel_reference
from sd2eval.metrics.neighbours import PRECISION_K, neighbour_reference
from sd2eval.probes import proportions, slices
from sd2eval.statistics import interval, standard_error

POOL, REFERENCE, N = 2000, 512, 96


class Ends(NamedTuple):
    value: float
    stderr: float
    low: float
    high: float


def calibration_photorealism() -> str:
    whole = _pools.images(_pools.scenes(POOL + REFERENCE))
    real = _pools.features("distance", whole[POOL:])
    pools = [_pools.features("distance", one) for one in (_pools.shuffled(whole[:POOL]), whole[:POOL])]
    balls = neighbour_reference(real, PRECISION_K)
    inside = [slices.inside(pool, balls) for pool in pools]
    none = np.full(POOL, -1)
    far = [slices.nearest_real(pool, real, none) for pool in pools]
    cases: list[Case] = []
    for p in PROPERTY_RATES:

        def draw(rng: np.random.Generator, p: float = p) -> tuple[list[int], np.ndarray]:
            return [int(one) for one in rng.random(N) < p], rng.integers(POOL, size=N)

        def precision(rng: np.random.Generator) -> proportions.Share:
            kind, at = draw(rng)
            return proportions.rate(np.array([inside[k][i] for k, i in zip(kind, at, strict=True)]))

        def nearest(rng: np.random.Generator) -> proportions.Share:
            kind, at = draw(rng)
            return slices.median([far[k][i] for k, i in zip(kind, at, strict=True)])

        truth = float((1 - p) * inside[0].mean() + p * inside[1].mean())
        cases.append(repeat(f"precision, {p:.0%} whole", truth, N, precision))
        weights = np.concatenate([np.full(POOL, (1 - p) / POOL), np.full(POOL, p / POOL)])
        cases.append(
            repeat(f"nearest real, {p:.0%} whole", _median(np.concatenate(far), weights), N, nearest)
        )
    cases += [_kernel(pools, real, p) for p in PROPERTY_RATES]
    return f"{table(cases)}\n\n{_small_n(pools[1], real)}"


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])


def _kernel(pools: list[np.ndarray], real: np.ndarray, p: float) -> Case:
    """Of the squared MMD, the truth is that of the mixture itself, from all pairs of the pools."""
    reference = kernel_reference(real)
    d = real.shape[1]

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a @ b.T / d + 1) ** 3).mean())

    q = (1 - p, p)
    own = sum(q[i] * q[j] * mean(pools[i], pools[j]) for i in (0, 1) for j in (0, 1))
    truth = own - 2 * sum(q[i] * mean(pools[i], real) for i in (0, 1)) + reference.within

    def draw(rng: np.random.Generator) -> Ends:
        kind = (rng.random(N) < p).astype(int)
        chosen = np.stack([pools[k][i] for k, i in zip(kind, rng.integers(POOL, size=N), strict=True)])
        found = kernel_distance(chosen, reference)
        stderr = standard_error(found.influence)
        return Ends(found.value, stderr, *interval(found.value, stderr, dof=N - 1))

    return repeat(f"kernel distance, {p:.0%} whole", truth, N, draw)


def _small_n(pool: np.ndarray, real: np.ndarray) -> str:
    """Why slices are cut to equal numbers: the same scenes, nothing wrong with them, at several n."""
    rng, reference = np.random.default_rng(0), frechet_reference(gaussian(real))
    lines = ["| n of whole scenes | Frechet distance | spread |", "|---|---|---|"]
    for n in (40, 60, 100, 200, 500, 2000):
        found = [
            frechet_distance(pool[rng.choice(POOL, n, replace=False)], reference).value
            for _ in range(100 if n < POOL else 1)
        ]
        lines.append(f"| {n:,} | {np.mean(found):.3f} | {np.std(found):.3f} |")
    return "\n".join(lines)
