"""How often the 95% interval of each metric covers the truth, by simulation on data whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py

Prints the tables of docs/uncertainty.md. "at n": share of intervals that cover the mean of the estimator at
this n; "population": that cover the value for infinitely many samples. The reference is fixed throughout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from intervals import HEAD, SIZES, Draw, Study, measure, row
from numpy.typing import NDArray
from populations import (
    Finite,
    Normal,
    frechet_truth,
    kernel_truth,
    normals,
    population_reference,
)

from sd2eval.metrics.claims import claim
from sd2eval.metrics.clip_mmd import clip_mmd, clip_reference
from sd2eval.metrics.frechet import frechet_debiased, frechet_distance
from sd2eval.metrics.frechet_infinity import frechet_infinity
from sd2eval.metrics.inception_score import inception_score
from sd2eval.metrics.kernel import kernel_distance, kernel_reference
from sd2eval.metrics.neighbours import coverage, density, neighbour_reference, precision, recall
from sd2eval.metrics.paired import mean_of_images
from sd2eval.metrics.similarity import mean_cosine
from sd2eval.statistics import Estimate, difference

Array = NDArray[np.float64]


def frechet_studies() -> Iterator[Study]:
    for d, repetitions in (
        (8, (2000, 2000, 2000, 1000)),
        (64, (2000, 1000, 1000, 500)),
        (256, (600, 300, 300, 150)),
    ):
        generated, real = normals(d)
        reference = population_reference(real)
        truth = frechet_truth(generated, reference)
        for name, function in (
            ("frechet_distance", frechet_distance),
            ("frechet_debiased", frechet_debiased),
        ):
            yield Study(name, d, generated, lambda x, f=function, r=reference: f(x, r), truth, repetitions)
    for d, repetitions in ((8, (1000, 1000, 1000, 400)), (64, (500, 300, 300, 100))):
        generated, real = normals(d)
        reference = population_reference(real)
        truth = frechet_truth(generated, reference)
        yield Study(
            "frechet_infinity",
            d,
            generated,
            lambda x, r=reference: frechet_infinity(x, r),
            truth,
            repetitions,
        )


def kernel_studies() -> Iterator[Study]:
    for d, gap in ((8, 1.0), (64, 1.0), (64, 0.0)):
        generated, real = normals(d, gap)
        samples = real(np.random.default_rng(1), 500)
        reference = kernel_reference(samples)
        truth = kernel_truth(generated, samples, reference.within)
        name = "kernel_distance" + ("" if gap else ", equal sets")
        repetitions = (2000, 1000, 1000, 300)
        yield Study(name, d, generated, lambda x, r=reference: kernel_distance(x, r), truth, repetitions)


def clip_studies() -> Iterator[Study]:
    for d in (64,):
        rng = np.random.default_rng(d)
        population, samples = Finite(rng.normal(size=(4000, d)) + 0.4), rng.normal(size=(500, d))
        reference = clip_reference(samples)
        # Drawn with replacement, a row meets itself once in 4,000 pairs: the mean over all pairs, itself too.
        whole = clip_mmd(population.rows, reference).value
        truth = {"biased": whole, "unbiased": whole - (1 - reference.within) / len(samples)}
        for kind in ("biased", "unbiased"):
            yield Study(
                f"clip_mmd, {kind}",
                d,
                population,
                lambda x, r=reference, k=kind: clip_mmd(x, r, k),
                truth[kind],
                (2000, 1000, 1000, 300),
            )


def neighbour_studies() -> Iterator[Study]:
    for d in (8, 64):
        generated, real = normals(d)
        samples = real(np.random.default_rng(1), 500)
        many = generated(np.random.default_rng(2), 200_000)
        for function, k in ((precision, 3), (density, 5), (recall, 3), (coverage, 5)):
            reference = neighbour_reference(samples, k)
            mean = function in (precision, density)
            truth = function(many, reference).value if mean else None
            repetitions = (1000, 1000, 500, 200) if function is not recall else (1000, 500, 300, 100)
            yield Study(
                function.__name__,
                d,
                generated,
                lambda x, f=function, r=reference: f(x, r),
                truth,
                repetitions,
            )


def mean_studies() -> Iterator[Study]:
    rng = np.random.default_rng(0)
    pairs = Finite(np.hstack([rng.normal(size=(4000, 64)) + 0.3, rng.normal(size=(4000, 64)) + 0.3]))
    truth = mean_cosine(pairs.rows[:, :64], pairs.rows[:, 64:]).value
    yield Study("mean_cosine", 64, pairs, lambda x: mean_cosine(x[:, :64], x[:, 64:]), truth)
    yield Study("mean_of_images, normal", 1, one(lambda r, n: r.normal(size=n)), mean, 0.0)
    skewed = one(lambda r, n: np.exp(r.normal(size=n)))
    yield Study("mean_of_images, log-normal", 1, skewed, mean, float(np.exp(0.5)))
    for share in (0.1, 0.01):
        rare = one(lambda r, n, p=share: (r.random(n) < p).astype(float))
        yield Study(f"mean_of_images, {share:.0%} yes", 1, rare, mean, share)


def one(draw: Draw) -> Draw:
    return lambda rng, n: draw(rng, n)[:, None]


def mean(x: Array) -> Estimate:
    return mean_of_images(x[:, 0])


def inception_studies() -> Iterator[Study]:
    for classes, repetitions in ((10, (2000, 2000, 1000, 500)), (1000, (500, 500, 500, 0))):
        rng = np.random.default_rng(classes)
        population = Finite(2.5 * rng.normal(size=(20_000 if classes == 10 else 4000, classes)))
        truth = inception_score(population.rows).value
        yield Study("inception_score", classes, population, inception_score, truth, repetitions)


def clustered_studies() -> Iterator[Study]:
    generated, real = normals(8)
    samples = real(np.random.default_rng(1), 500)
    moments = population_reference(real)
    kernel, balls = kernel_reference(samples), neighbour_reference(samples, 3)
    draw, repetitions = generated.clustered, (1000, 1000, 500, 200)
    truth = frechet_truth(generated, moments)
    yield Study("frechet_distance", 8, draw, lambda x: frechet_distance(x, moments), truth, repetitions, True)
    yield Study("frechet_debiased", 8, draw, lambda x: frechet_debiased(x, moments), truth, repetitions, True)
    truth = kernel_truth(generated, samples, kernel.within)
    yield Study("kernel_distance", 8, draw, lambda x: kernel_distance(x, kernel), truth, repetitions, True)
    truth = precision(generated(np.random.default_rng(2), 200_000), balls).value
    yield Study("precision", 8, draw, lambda x: precision(x, balls), truth, repetitions, True)
    yield Study("mean_of_images", 8, draw, mean, float(generated.mean[0]), repetitions, True)


def paired_studies() -> Iterator[Study]:
    """Two cells with the same captions and noise: the interval of their difference."""
    generated, real = normals(64)
    moments = population_reference(real)
    kernel = kernel_reference(real(np.random.default_rng(1), 500))
    other = Normal(0.9 * generated.mean, 0.95 * generated.factor)

    def both(rng: np.random.Generator, n: int) -> Array:
        z = rng.normal(size=(2, n, 64))
        near = 0.95 * z[0] + np.sqrt(1 - 0.95**2) * z[1]
        return np.hstack([z[0] @ generated.factor.T + generated.mean, near @ other.factor.T + other.mean])

    for name, function, against in (
        ("frechet_distance", frechet_distance, moments),
        ("kernel_distance", kernel_distance, kernel),
    ):

        def gap(x: Array, f: Callable[..., Estimate] = function, r: object = against) -> Estimate:
            a, b = f(x[:, :64], r), f(x[:, 64:], r)
            return Estimate(difference(a, b).value, a.influence - b.influence)

        if function is frechet_distance:
            truth = frechet_truth(generated, moments) - frechet_truth(other, moments)
        else:
            samples = kernel.features
            truth = kernel_truth(generated, samples, 0) - kernel_truth(other, samples, 0)
        yield Study(name, 64, both, gap, truth, (500, 500, 300, 100))


TABLES = {
    "Distances": lambda: [*frechet_studies(), *kernel_studies(), *clip_studies()],
    "Neighbours": lambda: list(neighbour_studies()),
    "Means and Inception Score": lambda: [*mean_studies(), *inception_studies()],
    "Captions of one image are not independent": lambda: list(clustered_studies()),
    "Differences of two cells, paired": lambda: list(paired_studies()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all repetitions")
    parser.add_argument("--only", default="", help="part of a table's name")
    arguments = parser.parse_args()
    start = time.process_time()
    off: set[str] = set()
    for title, studies in TABLES.items():
        if arguments.only not in title:
            continue
        print(f"\n## {title}\n\n{HEAD}", flush=True)
        for study in studies():
            for n, planned in zip(SIZES, study.repetitions, strict=True):
                repetitions = int(planned * arguments.scale)
                if repetitions:
                    line = row(study, n, measure(study, n, repetitions, study.clustered))
                    print(line, flush=True)
                    if line.endswith(("| wide |", "| narrow |")):
                        off.add(study.name.partition(",")[0])
        print(f"\n({time.process_time() - start:.0f} CPU seconds so far)", flush=True)
    silent = sorted(name for name in off if not claim(name).approximate)
    if silent:
        sys.exit(f"outside 92-98% without saying so in sd2eval.metrics.claims: {', '.join(silent)}")


if __name__ == "__main__":
    main()
