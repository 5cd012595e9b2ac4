"""Kill sweeps with SIGKILL at random moments, resume them each time, and compare with an undisturbed one.

    OMP_NUM_THREADS=2 python benchmarks/kill_soak.py --kills 200        # the mini sweep, half an hour
    python benchmarks/kill_soak.py --kills 20 experiment=smoke prompts.n=16 shard_size=2

Each sweep is a fork of a process that has imported everything, so a kill costs a second instead of a start. A
sweep that ends before all kills are spent is compared, and another one begun. Exit code 0 when all end with
the same results, features and images, byte for byte, and `verify` finds nothing in their folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sd2eval
from sd2eval import events, report, sweep  # noqa: F401 - loaded before the forks
from sd2eval.store import RunFolder
from sd2eval.verification.verify import inspect

SMALL_SHARDS = ("shard_size=1",)
"""Unless settings are given: so that a sweep gets on between two kills."""
LONGEST = 2.0
"""A kill comes within so many times the mean time that the shards between two kills take."""


class Sweep:
    """One sweep that is started again and again."""

    def __init__(self, out: Path, overrides: list[str]) -> None:
        self.out, self._overrides = out, overrides

    def start(self) -> int:
        """Start or resume it in a fork and return its process."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                sd2eval.run_sweep(*self._overrides, f"out={self.out}", "progress=false")
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        return child

    def run(self) -> float:
        """Run it to its end and return how many seconds it took."""
        begin = time.monotonic()
        _, status = os.waitpid(self.start(), 0)
        if status:
            raise SystemExit(f"a sweep ended with {os.waitstatus_to_exitcode(status)}")
        return time.monotonic() - begin

    def killed_after(self, delay: float) -> bool:
        """Kill it that many seconds after it began to write; False if it ended before."""
        sessions = len(self._sessions())
        child, end = self.start(), float("inf")
        while time.monotonic() < end:
            if end == float("inf") and len(self._sessions()) > sessions:
                end = time.monotonic() + delay
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                if status:
                    raise SystemExit(f"a sweep ended with {os.waitstatus_to_exitcode(status)}")
                return False
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True

    def _sessions(self) -> list[Path]:
        return list(self.out.glob("sessions/*.json"))

    def shards(self) -> list[Path]:
        """Return the published shards."""
        return sorted(self.out.glob("shards/*/[0-9]*"))

    def faults(self, expected: str) -> Iterator[str]:
        """Yield how its folder differs from the undisturbed one, and what `verify` says of it."""
        for finding in inspect(RunFolder(self.out)).findings:
            if finding.path != events.FILE:  # whose last line a kill may cut
                yield f"{finding.path}: {finding.what}"
        if self.digest() != expected:
            yield "other results, features or images"

    def digest(self) -> str:
        """Return the SHA-256 of what a sweep finds, without times and energy."""
        total = hashlib.sha256()
        for shard in self.shards():
            manifest = json.loads((shard / "manifest.json").read_text())
            found = [shard.parent.name, shard.name, manifest["images"], manifest["features_sha256"]]
            total.update(json.dumps(found).encode())
        for file in [self.out / "results.csv", *sorted(self.out.glob("images/*/*.png"))]:
            total.update(f"{file.relative_to(self.out)}\0".encode() + file.read_bytes())
        return total.hexdigest()


def soak(folder: Path, overrides: list[str], kills: int, chance: random.Random) -> list[str]:
    """Spend the kills; return what is wrong."""
    calm = Sweep(folder / "calm", overrides)
    seconds = calm.run()
    count, expected = len(calm.shards()), calm.digest()
    print(f"undisturbed: {seconds:.0f} s, {count} shards, {expected[:16]}", flush=True)
    per_shard, faults, ended, begin = seconds / count, list[str](), 0, time.monotonic()
    soaked, spent = Sweep(folder / "soaked", overrides), 0
    while spent < kills:
        left = count - len(soaked.shards())
        between = max(1.0, left / (kills - spent))
        if soaked.killed_after(chance.uniform(0, LONGEST * per_shard * between)):
            spent += 1
            if spent % 10 == 0:
                now = time.monotonic() - begin
                print(f"{spent} kills, {now:.0f} s: {len(soaked.shards())} shards", flush=True)
            continue
        ended += 1
        faults += [f"sweep {ended}: {fault}" for fault in soaked.faults(expected)]
        print(f"sweep {ended} has ended after {spent} kills in all", flush=True)
        shutil.rmtree(soaked.out)
    soaked.run()
    ended += 1
    faults += [f"sweep {ended}: {fault}" for fault in soaked.faults(expected)]
    print(
        f"{spent} kills of {ended} sweeps in {time.monotonic() - begin:.0f} s: digest {soaked.digest()[:16]}"
    )
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    overrides = arguments.overrides or list(SMALL_SHARDS)
    with tempfile.TemporaryDirectory() as folder:
        faults = soak(Path(folder), overrides, arguments.kills, random.Random(arguments.seed))
    print("\n".join(faults) or "same results, features and images as undisturbed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
