"""How often the intervals of the probes cover a known truth: the tables of docs/probes.md.

    OMP_NUM_THREADS=1 python benchmarks/probe_calibration.py [PROBE ...]

Rendered scenes with a known rate of a property are looked at once; repetitions resample what was seen. Each
module of benchmarks/probe_calibrations/ has a function `calibration_NAME`, which returns cases or text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from calibrating import Case, table

PARTS = Path(__file__).parent / "probe_calibrations"


def main(words: Sequence[str]) -> None:
    """Print the tables of the named probes, or of all."""
    have = sorted(file.stem for file in PARTS.glob("[!_]*.py"))
    unknown = [word for word in words if word not in have]
    if unknown:
        raise SystemExit(f"no calibration of '{unknown[0]}'; there are: {', '.join(have)}")
    for name in words or have:
        started = time.monotonic()
        found: Sequence[Case] | str = getattr(
            import_module(f"probe_calibrations.{name}"), f"calibration_{name}"
        )()
        text = found if isinstance(found, str) else table(found)
        print(f"### {name}\n\n{text}\n\n({time.monotonic() - started:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
