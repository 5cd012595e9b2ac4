"""Kill a sweep with SIGKILL at random moments, resume it each time, and compare with an undisturbed run.

    python benchmarks/kill_soak.py --kills 10 experiment=smoke prompts.n=16 shard_size=2

Exit code 0 when both end with the same results.csv, byte for byte, and the same images.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, soaked = Path(folder, "calm"), Path(folder, "soaked")
        seconds = run(command(calm, arguments.overrides))
        print(f"undisturbed: {seconds:.0f} s, {len(shards(calm))} shards", flush=True)
        soak(
            command(soaked, arguments.overrides),
            soaked,
            arguments.kills,
            seconds,
            random.Random(arguments.seed),
        )
        same = digest(calm) == digest(soaked)
    print("same results and images" if same else "DIFFERENT results or images")
    return 0 if same else 1


def command(out: Path, overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "sd2eval", "sweep", f"out={out}", "progress=false", *overrides]


def run(words: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def soak(words: list[str], out: Path, kills: int, seconds: float, chance: random.Random) -> None:
    """Kill each process at a random moment after it began to write; the moments are spread over the run."""
    for number in range(kills):
        sessions = len(list(out.glob("sessions/*.json")))
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while len(list(out.glob("sessions/*.json"))) == sessions and process.poll() is None:
            time.sleep(0.01)
        delay = chance.uniform(0, 1.2 * seconds / kills)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"kill {number + 1}, {delay:.2f} s into writing: {len(shards(out))} shards", flush=True)
            continue
        print(f"finished before kill {number + 1}")
        return
    run(words)


def shards(out: Path) -> list[Path]:
    return list(out.glob("shards/*/[0-9]*"))


def digest(out: Path) -> str:
    files = [out / "results.csv", *sorted(out.glob("images/*/*.png"))]
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(out)}\0".encode() + file.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
