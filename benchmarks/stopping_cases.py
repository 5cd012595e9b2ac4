"""Metrics and populations of the study of stopping, for benchmarks/stopping.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from intervals import Draw
from numpy.typing import NDArray
from populations import normals, population_reference

from sd2eval.metrics.frechet import frechet_distance
from sd2eval.metrics.kernel import kernel_distance, kernel_reference
from sd2eval.metrics.paired import mean_of_images
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]


class Case(NamedTuple):
    """One metric on one population, in one order of captions."""

    name: str
    d: int
    draw: Draw
    metric: Callable[[Array], Estimate]
    truth: float | None
    """The population's value; None where the interval is about the expected value at the n reached."""
    needed: tuple[int, ...]
    """Captions at which the true standard error meets the target: the target is set by them."""
    most: int
    runs: int
    images: NDArray[np.int_] | None = None
    """Image of each caption, shape [most]; None: captions of different images."""
    judged: bool = True
    """False where sd2eval.metrics.claims says that intervals do not hold at any fixed n of this size."""


def one(draw: Draw) -> Draw:
    return lambda rng, n: draw(rng, n)[:, None]


def mean(x: Array) -> Estimate:
    return mean_of_images(x[:, 0])


def lognormal(rng: np.random.Generator, n: int) -> Array:
    return np.exp(rng.normal(size=n))


def independent_means() -> Iterator[Case]:
    needed = (250, 400, 600, 1000, 2000)
    values: tuple[tuple[str, Draw, float], ...] = (
        ("mean, normal", lambda rng, n: rng.normal(size=n), 0.0),
        ("mean, log-normal", lognormal, float(np.exp(0.5))),
        ("mean, 10% yes", lambda rng, n: (rng.random(n) < 0.1).astype(float), 0.1),
    )
    for name, draw, truth in values:
        yield Case(name, 1, one(draw), mean, truth, needed, 5000, 4000)


def rare_means() -> Iterator[Case]:
    """An event of 1%: an early stop has seen fewer than 20 of them, which is said to be too few."""

    def draw(rng: np.random.Generator, n: int) -> Array:
        return (rng.random(n) < 0.01).astype(float)

    yield Case("mean, 1% yes", 1, one(draw), mean, 0.01, (1000, 2000), 5000, 4000, judged=False)


def clustered_means() -> Iterator[Case]:
    """Half of the variance is the image's: 4 captions side by side, or 5 of each image in random order."""
    most = 5000
    beside, mixed = np.arange(most) // 4, np.random.default_rng(5).permutation(np.arange(most) // 5)
    for name, images in (
        ("mean, 4 captions side by side", beside),
        ("mean, 5 captions in random order", mixed),
    ):

        def draw(rng: np.random.Generator, n: int, labels: NDArray[np.int_] = images) -> Array:
            return rng.normal(size=labels.max() + 1)[labels[:n]] + rng.normal(size=n)

        yield Case(name, 1, one(draw), mean, 0.0, (400, 600, 1000, 2000), most, 2000, images)


def distances() -> Iterator[Case]:
    for d in (8, 64):
        generated, real = normals(d)
        moments, kernel = population_reference(real), kernel_reference(real(np.random.default_rng(1), 500))
        yield Case(
            "frechet_distance",
            d,
            generated,
            lambda x, r=moments: frechet_distance(x, r),
            None,
            (400, 600, 1000, 2000),
            4000,
            2000,
        )
        yield Case(
            "kernel_distance",
            d,
            generated,
            lambda x, r=kernel: kernel_distance(x, r),
            None,
            (400, 600, 1000),
            2000,
            1000,
        )


def spectra(dimensions: tuple[int, ...]) -> Iterator[tuple[str, int, Array]]:
    """Yield standard deviations of coordinates: all of a similar size, or a few large ones."""
    for d in dimensions:
        yield "flat", d, np.exp(-3 * np.arange(d) / d)
        yield "steep", d, 1 / np.sqrt(np.arange(1, d + 1))
