"""`python -m sd2eval selfcheck`."""

from __future__ import annotations

import sys
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.words import parse

HELP = """Usage: python -m sd2eval selfcheck [KEY=VALUE ...]

Samples recorded fixtures on this machine, through the loader and the sampler of the sweep, and prints how far
the results are from the numbers of the original Stable Diffusion code (relative L2).

fixtures=DIR    a fixture or a folder of fixtures; default: the two that come with the package
device=auto     auto, cpu, cuda, cuda:N or mps
dtype=float32   float32, bfloat16 or float16; half precision can hide a mistake that float32 shows

Exit codes: 0 every number is within its limit, 1 one is not, 2 bad input, 75 stopped."""


def main() -> None:
    """Check the machine and leave with 1 if it computes something else."""
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(HELP)
        return
    positional, options = parse(words, ("fixtures", "device", "dtype"))
    if positional:
        raise InputError(
            f"'{positional[0]}': usage: python -m sd2eval selfcheck [fixtures=DIR] [device=...] [dtype=...]"
        )
    from sd2eval import selfcheck

    fixtures = Path(options["fixtures"]).expanduser() if "fixtures" in options else None
    passed = selfcheck.run_selfcheck(fixtures, options.get("device", "auto"), options.get("dtype", "float32"))
    if not passed:
        raise SystemExit(1)
