"""How the cost of a sweep grows with the captions and the workers, measured here and modelled beyond.

    python benchmarks/engines.py sampler.steps=50 --captions 8 --workers 1 2 4 --times 1 2 4 8 --rounds 1
    python benchmarks/engines.py sampler.steps=10 ...    # any settings of the sweep come first

Each measurement is a whole `sweep` command of `experiment=smoke` with the mini family: start, reference (from
the cache), images, scores. The worker counts go up and down again (A B B A) in each round, medians are
printed. CPU seconds are those of the command and of all processes that it waited for.

The model, fitted to the measured rows by least squares with no negative cost, for W workers on C cores:

    wall = once + start * W / min(W, C) + image * images / C
    CPU  = once + start * W             + image * images

where nothing is started for one worker, which is the command itself. On a CPU one worker uses all cores, a
batch on each; several share them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

HEAD = "| captions | images | workers | cores | wall s | modelled | CPU s | modelled | images per wall s |"
RULE = "|---:" * 9 + "|"
IMAGES_PER_CAPTION = 4
"""Two checkpoints at two scales."""


@dataclass(frozen=True)
class Row:
    captions: int
    workers: int
    cores: int
    wall: float
    cpu: float

    @property
    def images(self) -> int:
        return IMAGES_PER_CAPTION * self.captions


@dataclass(frozen=True)
class Model:
    """Seconds: once, per worker that is started, per image."""

    wall: tuple[float, float, float]
    cpu: tuple[float, float, float]

    def row(self, captions: int, workers: int, cores: int) -> Row:
        terms = _terms(Row(captions, workers, cores, 0, 0))
        wall, cpu = (float(np.dot(one, cost)) for one, cost in zip(terms, (self.wall, self.cpu), strict=True))
        return Row(captions, workers, cores, wall, cpu)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=16, help="of one time")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=2, help="of A B B A")
    parser.add_argument("--once", action="store_true", help="each size once, after no warm-up")
    parser.add_argument("--beyond-workers", type=int, nargs="+", default=[8, 32], help="modelled")
    parser.add_argument("--beyond-times", type=int, nargs="+", default=[8, 64], help="modelled")
    given, words = parser.parse_known_args(arguments)
    cores = len(os.sched_getaffinity(0))
    if not given.once:
        measured(given.captions, 1, words)  # the caches of the reference and of files
    rows = []
    for times in given.times:
        captions = times * given.captions
        for workers, costs in _timings(given, captions, words).items():
            wall, cpu = (statistics.median(cost[index] for cost in costs) for index in (0, 1))
            rows.append(Row(captions, workers, cores, wall, cpu))
            print(rows[-1], file=sys.stderr, flush=True)
    model = fitted(rows)
    print(f"{HEAD}\n{RULE}")
    for row in rows:
        print(_line(model.row(row.captions, row.workers, cores), row))
    for workers in given.beyond_workers:
        for times in given.beyond_times:
            print(_line(model.row(times * given.captions, workers, workers)))
    for name, cost in (("Wall", model.wall), ("CPU", model.cpu)):
        once, start, image = cost
        print(f"\n{name}: {once:.1f} s once, {start:.1f} s per worker, {image:.3f} s per image; ", end="")
        print(f"off by {_off(model, rows, name.lower()):.0%} of a measured row at most.")
    print(
        "\nRows without a measurement are modelled, with a core for each worker.\n"
        f"{cores} cores, {os.getloadavg()[0]:.1f} processes running on average in the last minute."
    )


def _line(modelled: Row, measured: Row | None = None) -> str:
    """Return a row of the table; a dash where nothing was measured."""
    wall, cpu = (f"{measured.wall:.1f}", f"{measured.cpu:.1f}") if measured else ("-", "-")
    known = measured or modelled
    sizes = (known.captions, known.images, known.workers, known.cores)
    costs = (wall, f"{modelled.wall:.1f}", cpu, f"{modelled.cpu:.1f}", f"{known.images / known.wall:.2f}")
    return f"| {' | '.join(map(str, sizes + costs))} |"


def fitted(rows: Sequence[Row]) -> Model:
    """Return the model with the smallest relative squared errors."""
    found = []
    for kind, name in enumerate(("wall", "cpu")):
        values = np.array([getattr(row, name) for row in rows])
        terms = np.array([_terms(row)[kind] for row in rows])
        once, start, image = nnls(terms / values[:, None], np.ones(len(rows)))[0]
        found.append((float(once), float(start), float(image)))
    return Model(*found)


def measured(captions: int, workers: int, words: Sequence[str]) -> tuple[float, float]:
    """Run one sweep and return its wall and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sd2eval", "sweep", "experiment=smoke", "progress=false"]
        command += [f"prompts.n={captions}", "shard_size=4", "images=none", "device=cpu", *words]
        command += [f"out={Path(folder) / 'run'}", f"engine.workers={workers}"]
        before, begin = _cpu_seconds(), time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begin, _cpu_seconds() - before


def _timings(
    given: argparse.Namespace, captions: int, words: Sequence[str]
) -> dict[int, list[tuple[float, float]]]:
    found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in given.workers}
    order = given.workers if given.once else [*given.workers, *reversed(given.workers)]
    for _ in range(1 if given.once else given.rounds):
        for workers in order:
            found[workers].append(measured(captions, workers, words))
    return found


def _terms(row: Row) -> tuple[list[float], list[float]]:
    """Return what wall and CPU seconds are sums of."""
    started = row.workers if row.workers > 1 else 0
    at_once = min(row.workers, row.cores)
    return [1, started / at_once, row.images / row.cores], [1, started, row.images]


def _off(model: Model, rows: Sequence[Row], name: str) -> float:
    """Return the largest relative error of the model."""
    return max(
        abs(float(getattr(model.row(row.captions, row.workers, row.cores), name) / getattr(row, name)) - 1)
        for row in rows
    )


def _cpu_seconds() -> float:
    """Return what all ended children took, theirs included if they were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
