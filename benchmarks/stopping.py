"""How often intervals cover the truth when n was chosen by looking at the standard error.

    OMP_NUM_THREADS=1 python benchmarks/stopping.py

Prints the tables of "How many images are enough" in docs/uncertainty.md; --quick the same ones from
fewer runs, in seconds. All rules see the same simulated images, so their differences are those of the rules.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

import numpy as np
from intervals import covered, monte_carlo_error, percent
from numpy.typing import NDArray
from populations import Normal
from stopping_cases import Case, clustered_means, distances, independent_means, rare_means, spectra

from sd2eval.metrics.frechet import FrechetReference, Gaussian, frechet_distance, frechet_reference
from sd2eval.statistics import interval, standard_error
from sd2eval.stopping import FIRST_LOOK, enough, looks, stopping_n

Array = NDArray[np.float64]


class Rule(NamedTuple):
    """When to stop; the package's own rule is `CHOSEN`."""

    name: str
    first: int
    in_a_row: int = 1
    inflation: float = 0.0
    """c: the error times 1 + c / sqrt(n) has to meet the target."""

    def __call__(self, schedule: list[int], errors: Array, target: float) -> int:
        """Return the position of the look at which a run stops, the last one if never."""
        seen, run = {"m": target}, 0
        for position, (n, error) in enumerate(zip(schedule, errors, strict=True)):
            met = enough({"m": error * (1 + self.inflation / np.sqrt(n))}, seen)
            run = run + 1 if met else 0
            if run == self.in_a_row:
                return position
        return len(schedule) - 1


CHOSEN = Rule(f"first look at {FIRST_LOOK} (chosen)", FIRST_LOOK)
RULES = (
    Rule("first look at 20", 20),
    Rule("first look at 50", 50),
    Rule("first look at 200", 200),
    Rule("first look at 200, two in a row", 200, in_a_row=2),
    Rule("first look at 200, error (1 + 2 / √n)", 200, inflation=2.0),
    CHOSEN,
)


class Paths(NamedTuple):
    """Values and standard errors of the first n captions, for each n of `sizes`, in each run."""

    sizes: list[int]
    values: Array
    """Shape [runs, sizes]."""
    errors: Array
    truths: Array
    """Shape [sizes]: what the interval at that n is about."""


def paths(case: Case, sizes: list[int], runs: int) -> Paths:
    rng = np.random.default_rng([case.d, len(case.name), case.most])
    values, errors = np.zeros((2, runs, len(sizes)))
    for run in range(runs):
        x = case.draw(rng, case.most)
        for column, n in enumerate(sizes):
            estimate = case.metric(x[:n])
            groups = None if case.images is None else case.images[:n]
            values[run, column] = estimate.value
            errors[run, column] = standard_error(estimate.influence, groups)
    truths = values.mean(axis=0) if case.truth is None else np.full(len(sizes), case.truth)
    return Paths(sizes, values, errors, truths)


class Outcome(NamedTuple):
    """What a rule did in the runs of one case with one target."""

    n: NDArray[np.int_]
    """Shape [runs]: where each run stopped."""
    hits: NDArray[np.bool_]
    """Whether the interval of each run covered what it is about."""


def target_of(seen: Paths, needed: int) -> float:
    """Return the true standard error at n = needed, by 1 / sqrt(n) from the nearest n that was simulated."""
    column = int(np.argmin(np.abs(np.log(np.array(seen.sizes) / needed))))
    return float(seen.values[:, column].std(ddof=1) * np.sqrt(seen.sizes[column] / needed))


def outcome(seen: Paths, rule: Rule, most: int, target: float) -> Outcome:
    schedule = looks(rule.first, most)
    columns = np.array([seen.sizes.index(n) for n in schedule])
    stops = np.array([rule(schedule, errors, target) for errors in seen.errors[:, columns]])
    at = columns[stops]
    rows = np.arange(len(at))
    return Outcome(
        np.array(schedule)[stops], hits(seen.values[rows, at], seen.errors[rows, at], seen.truths[at])
    )


def hits(values: Array, errors: Array, truths: Array) -> NDArray[np.bool_]:
    ends = [interval(value, error) for value, error in zip(values, errors, strict=True)]
    return np.array([low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True)])


def fixed(seen: Paths, most: int, needed: int) -> float:
    """Return the coverage without stopping, at the first of the package's looks that has the needed n."""
    column = seen.sizes.index(next((n for n in looks(FIRST_LOOK, most) if n >= needed), most))
    return covered(seen.values[:, column], seen.errors[:, column], float(seen.truths[column]))


def rules_table(scale: float) -> None:
    """Compare rules on means, whose runs are cheap enough for them all."""
    print("\n### Rules\n\n| rule | worst coverage | of | images / needed |\n|---|---|---|---|")
    results: dict[str, list[tuple[float, str, float]]] = {rule.name: [] for rule in RULES}
    for case in independent_means():
        sizes = sorted({n for rule in RULES for n in looks(rule.first, case.most)})
        seen = paths(case, sizes, int(case.runs * scale))
        for needed in case.needed:
            for rule in RULES:
                end = outcome(seen, rule, case.most, target_of(seen, needed))
                place = f"{case.name.removeprefix('mean, ')}, {needed} needed"
                results[rule.name].append((float(end.hits.mean()), place, float(end.n.mean()) / needed))
    for rule in RULES:
        share, place, _ = min(results[rule.name])
        cost = np.mean([cost for *_, cost in results[rule.name]])
        runs = int(4000 * scale)
        print(f"| {rule.name} | {percent(share, runs)} | {place} | {cost:.2f} |", flush=True)


HEAD = (
    "| metric | d | needed n | runs | mean n | 5-95% of n | error / target "
    "| fixed n | stopped | stopped early | verdict |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def chosen_row(case: Case, seen: Paths, needed: int) -> str:
    """Return the row of the package's rule, whose stops are those of `stopping_n`."""
    target = target_of(seen, needed)
    end = outcome(seen, CHOSEN, case.most, target)
    for errors, n in zip(seen.errors, end.n, strict=True):
        by_size = dict(zip(seen.sizes, errors, strict=True))
        stop = stopping_n(looks(FIRST_LOOK, case.most), lambda k, e=by_size: {"m": e[k]}, {"m": target})
        assert (stop or case.most) == n
    runs = len(end.n)
    early = end.n < needed
    least, greatest = np.quantile(end.n, (0.05, 0.95), method="nearest")
    claimed = seen.errors[np.arange(runs), [seen.sizes.index(n) for n in end.n]].mean()
    share = float(end.hits.mean())
    cells = [
        case.name,
        case.d,
        needed,
        runs,
        f"{end.n.mean():.0f}",
        f"{least}-{greatest}",
        f"{claimed / target:.2f}",
        percent(fixed(seen, case.most, needed), runs),
        percent(share, runs),
        f"{early.mean():.0%}: {percent(float(end.hits[early].mean()), early.sum())}"
        if early.sum() > 20
        else "",
        verdict(share, runs) if case.judged else "approximate",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def verdict(share: float, runs: int) -> str:
    slack = 2 * monte_carlo_error(share, runs)
    if share + slack < 0.92:
        return "narrow"
    return "wide" if share - slack > 0.98 else "holds"


def chosen_table(scale: float) -> list[str]:
    """Print the rows of the package's rule; return those that miss."""
    print(f"\n### The rule\n\n{HEAD}")
    missed = []
    for case in (*independent_means(), *rare_means(), *clustered_means(), *distances()):
        seen = paths(case, looks(FIRST_LOOK, case.most), int(case.runs * scale))
        for needed in case.needed:
            line = chosen_row(case, seen, needed)
            print(line, flush=True)
            missed += [line] if line.endswith(("| narrow |", "| wide |")) else []
    return missed


def bias_table(dimensions: tuple[int, ...], most_runs: int) -> None:
    """Print how far a Fréchet distance moves from one look to the next, against its error."""
    print("\n### Fréchet distances at neighbouring looks\n")
    print("| spectrum | d | n, next look | mean values | standard error at n | difference / error |")
    print("|---|---|---|---|---|---|")
    for name, d, fall in spectra(dimensions):
        real = Normal(np.zeros(d), np.diag(fall))
        generated = Normal(0.1 * fall, 1.1 * real.factor)
        reference = frechet_reference(Gaussian(real.mean, real.covariance, 100_000))
        for n in looks(FIRST_LOOK, 6000)[:-1:3]:
            after = looks(n, 10**6)[1]
            (value, later), error = expected(generated, reference, (n, after), most_runs)
            moved = f"{(value - later) / error:.1f}"
            print(
                f"| {name} | {d} | {n}, {after} | {value:.4g}, {later:.4g} | {error:.3g} | {moved} |",
                flush=True,
            )


def expected(
    generated: Normal, reference: FrechetReference, sizes: tuple[int, int], most_runs: int
) -> tuple[Array, float]:
    """Return the mean Fréchet distance of the first n captions, for both sizes, and the standard error of the
    first, root mean square over runs.
    """
    rng = np.random.default_rng(sizes)
    spread = np.diag(generated.factor)
    values, squares = [], []
    for _ in range(min(most_runs, 200_000 // len(spread) ** 2 + 2)):
        x = rng.normal(size=(sizes[1], len(spread))) * spread + generated.mean
        both = [frechet_distance(x[:n], reference) for n in sizes]
        values.append([estimate.value for estimate in both])
        squares.append(standard_error(both[0].influence) ** 2)
    return np.mean(values, axis=0), float(np.sqrt(np.mean(squares)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs, for a test that it runs")
    quick = parser.parse_args().quick
    start = time.process_time()
    rules_table(0.01 if quick else 1.0)
    missed = chosen_table(0.01 if quick else 1.0)
    bias_table((8,), 2) if quick else bias_table((64, 2048), 200)
    print(f"\n({time.process_time() - start:.0f} CPU seconds)")
    if missed and not quick:
        sys.exit("outside 92-98%:\n" + "\n".join(missed))


if __name__ == "__main__":
    main()
