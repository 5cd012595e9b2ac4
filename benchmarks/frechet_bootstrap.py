"""CPU seconds of paired bootstrap replicates of the Frechet distance, and what they are good for.

    OMP_NUM_THREADS=1 python benchmarks/frechet_bootstrap.py

Prints seconds per cell, the bias of the replicates, and their spread against the standard error that the
influences give.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sd2eval.metrics.frechet import frechet_distance, frechet_reference, gaussian
from sd2eval.metrics.resampling import frechet_replicates, resample_counts
from sd2eval.statistics import difference, standard_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--d", type=int, default=2048)
    parser.add_argument("--reference", type=int, default=5000)
    parser.add_argument("--replicates", type=int, default=200)
    arguments = parser.parse_args()
    n, d = arguments.n, arguments.d
    rng = np.random.default_rng(0)
    spectrum = np.exp(-3 * np.arange(d) / d)  # falls like that of image features
    start = time.process_time()
    reference = frechet_reference(gaussian(rng.normal(size=(arguments.reference, d)) * spectrum))
    print(f"reference of {arguments.reference} x {d}: {time.process_time() - start:.2f} CPU s, once")
    common = rng.normal(size=(n, d)) * spectrum
    cells = [scale * common + 0.5 * rng.normal(size=(n, d)) * spectrum for scale in (1.0, 0.9)]
    counts = resample_counts(n, arguments.replicates, seed=0)
    start = time.process_time()
    replicates = frechet_replicates(cells, reference, counts)
    seconds = (time.process_time() - start) / len(cells)
    print(f"{arguments.replicates} replicates at n = {n}: {seconds:.2f} CPU s per cell")
    start = time.process_time()
    estimates = [frechet_distance(cell, reference) for cell in cells]
    print(f"value with influences: {(time.process_time() - start) / len(cells):.2f} CPU s per cell")
    a, b = estimates
    print("\n|  | value | mean replicate | influence standard error | spread of replicates |")
    print("|---|---|---|---|---|")
    for name, values, value, stderr in (
        ("a", replicates[:, 0], a.value, standard_error(a.influence)),
        ("b", replicates[:, 1], b.value, standard_error(b.influence)),
        ("a - b, paired", replicates[:, 0] - replicates[:, 1], *difference(a, b)),
    ):
        print(f"| {name} | {value:.2f} | {values.mean():.2f} | {stderr:.3f} | {values.std(ddof=1):.3f} |")


if __name__ == "__main__":
    main()
