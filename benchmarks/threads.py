"""One batch on all cores against one batch per core: what the sampler does on a CPU, and why.

    python benchmarks/threads.py --pairs 3

Alternates A B B A in one process; prints the ratio of wall seconds per checkpoint. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sd2eval import checkpoints, noise, sampler
from sd2eval.checkpoints import Checkpoint, Conditioning
from sd2eval.config import from_overrides

WAYS = {
    "all cores on one": lambda draw, batches, device: map(draw, batches),
    "one per core": sampler._side_by_side,
}
SCALES = [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--captions", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    _, definitions = from_overrides("checkpoints=[512-base,768-v]")
    for definition in definitions:
        checkpoint = checkpoints.load(definition, torch.device("cpu"), torch.float32)
        timings: dict[str, list[float]] = {way: [] for way in WAYS}
        seconds(checkpoint, "one per core", arguments)  # warm-up
        for _ in range(arguments.pairs):
            for way in ("all cores on one", "one per core", "one per core", "all cores on one"):
                timings[way].append(seconds(checkpoint, way, arguments))
        a, b = (statistics.median(values) for values in timings.values())
        print(f"{definition.name}: {a:.2f} s all cores on one, {b:.2f} s one per core, ratio {a / b:.2f}")


def seconds(checkpoint: Checkpoint, way: str, arguments: argparse.Namespace) -> float:
    captions = list(range(arguments.captions))
    data = sampler.Inputs(
        noise=noise.normal(0, captions, "latent", checkpoint.latent_shape),
        cond=checkpoint.text_encoder(["a red ball on a beach"] * len(captions))[0],
        uncond=checkpoint.uncond(),
        conditioning=Conditioning(),
    )
    sampler._side_by_side = WAYS[way]
    begin = time.monotonic()
    sampler.sample(
        checkpoint.unet,
        checkpoint.scheduler,
        data,
        SCALES,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
    )
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
