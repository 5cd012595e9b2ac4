"""Autoencoder: rendered scenes are changed by a known amount instead of being encoded."""

from __future__ import annotations

import numpy as np
from calibrating import PROPERTY_RATES, Case, repeat
from probe_calibrations import _pools

from sd2eval.metrics.paired import mean_of_images
from sd2eval.paired import psnr
from sd2eval.probes.base import Row
from sd2eval.probes.declared.autoencoder import paired_frechet
from sd2eval.probes.means import mean_interval
from sd2eval.statistics import Interval, interval, standard_error

POOL, N, DIMENSIONS = 1500, 128, 8


def row(value: float, stderr: float, n: int, ends: Interval) -> Row:
    return Row(
        metric="x", value=value, stderr=stderr, low=ends.low, high=ends.high, n=n, direction="lower", unit=""
    )


def calibration_autoencoder() -> list[Case]:
    originals = _pools.images(_pools.scenes(POOL))
    rng = np.random.default_rng(0)
    noisy = np.clip(originals + rng.normal(0, 6, originals.shape).round(), 0, 255).astype(np.uint8)
    blurred = ((originals.astype(np.uint16) + np.roll(originals, 1, axis=2)) // 2).astype(np.uint8)
    decibel = psnr(noisy, originals), psnr(blurred, originals)
    cases = []
    for p in PROPERTY_RATES:

        def mean(rng: np.random.Generator, p: float = p) -> Row:
            chosen, second = rng.integers(POOL, size=N), rng.random(N) < p
            found = mean_of_images(np.where(second, decibel[1][chosen], decibel[0][chosen]))
            return row(found.value, standard_error(found.influence), N, mean_interval(found))

        truth = float((1 - p) * decibel[0].mean() + p * decibel[1].mean())
        cases.append(repeat(f"PSNR, {p:g} of the images blurred, the others noisy", truth, N, mean))
    for p in PROPERTY_RATES:

        def floor(rng: np.random.Generator, p: float = p) -> Row:
            real = rng.normal(size=(400, DIMENSIONS))
            moved = real + p * np.eye(DIMENSIONS)[0] + 0.2 * rng.normal(size=real.shape)
            found = paired_frechet(moved.astype(np.float32), real.astype(np.float32))
            return row(found.value, found.stderr, 400, interval(found.value, found.stderr, dof=found.dof))

        truth = p * p + DIMENSIONS * (np.sqrt(1.04) - 1) ** 2
        cases.append(repeat(f"paired distance, features moved by {p:g}", truth, 400, floor, 300))
    return cases
