"""How often `compare` finds a difference where there is none, and where there is one.

    OMP_NUM_THREADS=1 python benchmarks/compare_errors.py

Both sides share half of the variance of each feature (captions and noise), an image has one to three captions
that share a third of it. "none": both are drawn alike. "other, as good": shifted to opposite sides of a
reference that is symmetric, so the distances are equal and the images (and their scores) are not. "better":
one of them shifted. "ungrouped": the score, with captions of one image taken for independent.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from sd2eval.metrics import METRICS, Reference
from sd2eval.statistics import difference, p_value

CASES = {"none": (0.2, 0.2), "other, as good": (0.3, -0.3), "better": (0.25, 0.0)}
NAMES = ("fd_mini", "kid_mini", "clip_mini")
COLUMNS = (*NAMES, "ungrouped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--images", type=int, nargs="+", default=[4, 6, 10, 20, 50, 200])
    parser.add_argument("--d", type=int, default=16)
    arguments = parser.parse_args()
    print(f"share of p < 0.05 over {arguments.repetitions} repetitions, d = {arguments.d}")
    print("case            images  " + "  ".join(f"{name:>9}" for name in COLUMNS))
    for case, shifts in CASES.items():
        for images in arguments.images:
            shares = rejections(images, arguments.d, shifts, arguments.repetitions)
            print(f"{case:<14}  {images:>6}  " + "  ".join(f"{share:9.3f}" for share in shares), flush=True)


def rejections(images: int, d: int, shifts: tuple[float, float], repetitions: int) -> NDArray[np.float64]:
    """Return for each metric how often the uncorrected p-value is below 0.05."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, d + 1) ** -0.5
    half = rng.normal(size=(250, d)) * spectrum
    reference = Reference(np.concatenate([half, -half]))
    found = np.zeros(len(COLUMNS))
    for _ in range(repetitions):
        groups = np.repeat(np.arange(images), rng.integers(1, 4, images))
        text = np.tile(np.eye(d)[0] + 0.5, (len(groups), 1))
        shared = draw(rng, groups, d)
        a, b = ((shared + draw(rng, groups, d)) * np.sqrt(0.5) * spectrum + shift for shift in shifts)
        for index, name in enumerate(NAMES):
            against = text if METRICS[name].kind == "score" else reference
            estimates = [METRICS[name].estimate(x, against) for x in (b, a)]
            found[index] += p_value(*difference(*estimates, groups), images - 1) < 0.05
        found[-1] += p_value(*difference(*estimates), len(groups) - 1) < 0.05
    return found / repetitions


def draw(rng: np.random.Generator, groups: NDArray[np.int64], d: int) -> NDArray[np.float64]:
    """Return standard normal features [n, d], a third of their variance shared by an image's captions."""
    own = rng.normal(size=(len(groups), d))
    return np.sqrt(1 / 3) * rng.normal(size=(groups.max() + 1, d))[groups] + np.sqrt(2 / 3) * own


if __name__ == "__main__":
    main()
