"""Each published architecture at its real size: loading time and peak memory, and two sampling steps.

The weights are random, in a float32 file of the published layout. Each architecture is loaded in a process
of its own, so that its peak memory is its own.

    python benchmarks/real_size.py [NAME ...] [--folder DIR] [--suffix .ckpt] [--steps 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

NAMES = (
    "512-base-ema", "768-v-ema", "512-depth-ema", "512-inpainting-ema", "x4-upscaling-ema",
    "v1-5-pruned-emaonly",
)  # fmt: skip


def make(name: str, file: Path) -> None:
    from published_layout import published_state, write

    from sd2eval.checkpoints.architecture import load_architecture
    from sd2eval.config import from_overrides

    definition = from_overrides("experiment=model_card", "data.root=.", f"checkpoint={name}")[1][0]
    write(published_state(load_architecture(definition.architecture or "")), file)


def load(name: str, file: Path, steps: int) -> None:
    """Load and sample in this process, and print what it took as one line of JSON."""
    import numpy as np
    import torch

    from sd2eval import checkpoints, noise
    from sd2eval.config import from_overrides
    from sd2eval.sampler import Inputs, sample

    overrides = ("experiment=model_card", "data.root=.", f"checkpoint={name}", "checkpoint.name=mine")
    definition = replace(from_overrides(*overrides)[1][0], source=str(file))
    imported = peak()
    begin = time.perf_counter()
    checkpoint = checkpoints.load(definition, torch.device("cpu"), torch.float32)
    loaded, loading = peak(), time.perf_counter() - begin
    size = definition.resolution
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    seen = checkpoint.adapter(picture, [1], 0) if checkpoint.adapter else checkpoints.Conditioning()
    inputs = Inputs(
        noise.normal(0, [1], "latent", checkpoint.latent_shape),
        checkpoint.text_encoder(["a red cube on top of a blue sphere"])[0],
        checkpoint.uncond(),
        seen,
    )
    begin = time.perf_counter()
    latent = sample(checkpoint.unet, checkpoint.scheduler, inputs, [3.0], steps=steps, batch_size=1)
    assert torch.isfinite(latent).all()
    print(
        json.dumps(
            {
                "load_s": loading,
                "import_gb": imported,
                "load_gb": loaded,
                "peak_gb": peak(),
                "step_s": (time.perf_counter() - begin) / steps,
                "latent": list(latent.shape[2:]),
            }
        )
    )


def peak() -> float:
    """Return this process's peak resident memory in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--folder", type=Path, help="where the files are written for a moment")
    parser.add_argument("--suffix", default=".safetensors", choices=(".safetensors", ".ckpt"))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", choices=("make", "load"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        file = given.folder / f"{given.names[0]}{given.suffix}"
        make(given.names[0], file) if given.only == "make" else load(given.names[0], file, given.steps)
        return
    print(
        "checkpoint              file GB   load s   load GB   of file   with sampling   s per step   latent"
    )
    for name in given.names:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            command = [sys.executable, __file__, name, "--folder", folder, "--suffix", given.suffix]
            command += ["--steps", str(given.steps), "--only"]
            subprocess.run([*command, "make"], check=True)
            size = (Path(folder) / f"{name}{given.suffix}").stat().st_size / 1e9
            done = subprocess.run([*command, "load"], check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:<22} {size:8.2f} {row['load_s']:8.1f} {row['load_gb']:9.2f} "
                f"{row['load_gb'] / size:8.2f}x {row['peak_gb']:13.2f} {row['step_s']:12.1f}   "
                f"{row['latent']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
