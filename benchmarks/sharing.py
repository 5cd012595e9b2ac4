"""What the sweep's sampler gains over sampling one prompt and one guidance scale at a time.

    python benchmarks/sharing.py --captions 8 --steps 50 --pairs 3

Both ways sample the mini 512-base with the same noise in this process, alternating A B B A; printed are the
ratios of CPU-seconds and of wall seconds, and how far the latents are apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from sd2eval import checkpoints, noise
from sd2eval.checkpoints import Checkpoint, Conditioning
from sd2eval.config import from_overrides
from sd2eval.sampler import Inputs, sample

SCALES = [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
TEXTS = [f"a photo of scene number {number}" for number in range(256)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    _, (definition,) = from_overrides("checkpoints=[512-base]")
    checkpoint = checkpoints.load(definition, torch.device("cpu"), torch.float32)
    ways = {
        "one at a time": lambda: one_at_a_time(checkpoint, arguments.captions, arguments.steps),
        "shared": lambda: shared(checkpoint, arguments.captions, arguments.steps, arguments.batch_size),
    }
    latents = {name: way() for name, way in ways.items()}  # warm-up
    timings: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.pairs):
        for name in ("one at a time", "shared", "shared", "one at a time"):
            timings[name].append(timed(ways[name]))
    for index, unit in enumerate(("CPU-seconds", "wall seconds")):
        a, b = (statistics.median(pair[index] for pair in timings[name]) for name in ways)
        print(f"{unit}: {a:.2f} one at a time, {b:.2f} shared, ratio {a / b:.2f}")
    apart = (latents["one at a time"] - latents["shared"]).norm() / latents["shared"].norm()
    print(f"latents apart by {apart:.1e} relative L2; {torch.get_num_threads()} threads")


def inputs(checkpoint: Checkpoint, captions: list[int]) -> Inputs:
    return Inputs(
        noise=noise.normal(0, captions, "latent", checkpoint.latent_shape),
        cond=checkpoint.text_encoder([TEXTS[caption] for caption in captions])[0],
        uncond=checkpoint.uncond(),
        conditioning=Conditioning(),
    )


def shared(checkpoint: Checkpoint, captions: int, steps: int, batch_size: int) -> torch.Tensor:
    data = inputs(checkpoint, list(range(captions)))
    return sample(checkpoint.unet, checkpoint.scheduler, data, SCALES, steps=steps, batch_size=batch_size)


def one_at_a_time(checkpoint: Checkpoint, captions: int, steps: int) -> torch.Tensor:
    rows = [
        [
            sample(
                checkpoint.unet,
                checkpoint.scheduler,
                inputs(checkpoint, [caption]),
                [scale],
                steps=steps,
                batch_size=1,
            )
            for scale in SCALES
        ]
        for caption in range(captions)
    ]
    return torch.cat([torch.cat(row, dim=1) for row in rows])


def timed(way: Callable[[], torch.Tensor]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.monotonic()
    way()
    return time.process_time() - cpu, time.monotonic() - wall


if __name__ == "__main__":
    main()
