"""Populations whose distances are known, for benchmarks/coverage.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sd2eval.metrics.frechet import FrechetReference, Gaussian, frechet_reference, root_trace

Array = NDArray[np.float64]
CAPTIONS_PER_IMAGE = 4


class Normal(NamedTuple):
    """A Gaussian whose spectrum falls like that of image features."""

    mean: Array
    factor: Array
    """Shape [d, d]: the covariance is factor @ factor.T."""

    def __call__(self, rng: np.random.Generator, n: int) -> Array:
        return rng.normal(size=(n, len(self.mean))) @ self.factor.T + self.mean

    def clustered(self, rng: np.random.Generator, n: int) -> Array:
        """Draw captions of one image side by side: half of the variance is the image's."""
        images = rng.normal(size=(n // CAPTIONS_PER_IMAGE + 1, len(self.mean)))
        shared = np.repeat(images, CAPTIONS_PER_IMAGE, axis=0)[:n]
        own = rng.normal(size=(n, len(self.mean)))
        return (shared + own) / np.sqrt(2) @ self.factor.T + self.mean

    @property
    def covariance(self) -> Array:
        return self.factor @ self.factor.T


def normals(d: int, gap: float = 1.0) -> tuple[Normal, Normal]:
    """Return the generated and the real population; a gap of 0 makes them equal."""
    rng = np.random.default_rng(d)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    real = turn * np.exp(-3 * np.arange(d) / d)
    shift = 0.3 * gap * real @ rng.normal(size=d)
    generated = (1 + 0.2 * gap) * real * np.exp(0.2 * gap * rng.normal(size=d))
    return Normal(shift, generated), Normal(np.zeros(d), real)


def frechet_truth(generated: Normal, reference: FrechetReference) -> float:
    inner = reference.factor @ generated.covariance @ reference.factor.T
    shift = generated.mean - reference.mean
    return float(shift @ shift + np.trace(generated.covariance) + reference.trace - 2 * root_trace(inner))


def kernel_truth(generated: Normal, reference: Array, within: float) -> float:
    """Return the population's MMD to the reference samples: third moments of Gaussians."""
    d, mean, s = len(generated.mean), generated.mean, generated.covariance
    bend = s @ mean
    # k(x, x') given x has mean a^3 + 3 a v with a = 1 + x . m / d and v = x' S x / d^2
    a, spread = 1 + mean @ mean / d, mean @ bend / d**2
    v, together = (np.square(s).sum() + mean @ bend) / d**2, 2 * bend @ bend / d**3
    own = a**3 + 3 * a * spread + 3 * (a * v + together)
    b = 1 + reference @ mean / d
    w = np.einsum("ij,jk,ik->i", reference, s, reference) / d**2
    return float(own + within - 2 * np.mean(b**3 + 3 * b * w))


class Finite(NamedTuple):
    """A population of as many rows as are listed, drawn with replacement, so that any truth is a sum."""

    rows: Array

    def __call__(self, rng: np.random.Generator, n: int) -> Array:
        return self.rows[rng.integers(0, len(self.rows), n)]

    def clustered(self, rng: np.random.Generator, n: int) -> Array:
        """Draw neighbours in the list side by side, as captions of one image."""
        images = rng.integers(0, len(self.rows) // CAPTIONS_PER_IMAGE, n // CAPTIONS_PER_IMAGE + 1)
        rows = images[:, None] * CAPTIONS_PER_IMAGE + np.arange(CAPTIONS_PER_IMAGE)
        return self.rows[rows.ravel()[:n]]


def population_reference(real: Normal) -> FrechetReference:
    """Return the real population's own moments, as of a reference without sampling error."""
    return frechet_reference(Gaussian(real.mean, real.covariance, 100_000))
