"""What more worker processes gain on this machine, and how cost grows with the number of captions.

    python benchmarks/engines.py --captions 16 --workers 1 2 4 --times 1 2 4 --pairs 2

Each measurement is a whole `sweep` command of the mini 512-base at eight scales, start and scores included,
in shards of four captions; the worker counts alternate A B B A. CPU seconds are those of the command and of
the processes that it waited for. Prints a Markdown table of medians.
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
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=2, help="rounds of A B B A")
    parser.add_argument("words", nargs="*", help="more words of the sweep, such as engine=ray")
    arguments = parser.parse_args()
    print("| captions | images | workers | wall s | CPU s | images/s | CPU s per image |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    measured(16, 1, 2, arguments.words)  # warm-up: the caches of reference and of files
    for times in arguments.times:
        captions = times * arguments.captions
        timings: dict[int, list[tuple[float, float]]] = {workers: [] for workers in arguments.workers}
        for _ in range(arguments.pairs):
            for workers in (*arguments.workers, *reversed(arguments.workers)):
                timings[workers].append(measured(captions, workers, arguments.steps, arguments.words))
        for workers, pairs in timings.items():
            wall, cpu = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
            images = 8 * captions
            print(
                f"| {captions} | {images} | {workers} | {wall:.1f} | {cpu:.1f} | {images / wall:.2f} "
                f"| {cpu / images:.3f} |",
                flush=True,
            )
    print(f"\n{os.cpu_count()} cores, {load():.1f} processes running on average in the last minute")


def measured(captions: int, workers: int, steps: int, words: list[str]) -> tuple[float, float]:
    """Run one sweep of eight scales and return its wall and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sd2eval", "sweep", "checkpoints=[512-base]", "progress=false"]
        command += [f"prompts.n={captions}", f"sampler.steps={steps}", "shard_size=4", "images=none"]
        command += [f"out={Path(folder) / 'run'}", f"engine.workers={workers}", "device=cpu", *words]
        before, begin = _cpu_seconds(), time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begin, _cpu_seconds() - before


def load() -> float:
    """Return the load average of the last minute: 1 per core is this benchmark alone."""
    return os.getloadavg()[0]


def _cpu_seconds() -> float:
    """Return what all ended children took, theirs included if they were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
