"""A program that kills small sweeps at chosen points, resumes them, and prints what it found as JSON.

    python -m tests.reliability.killed_sweeps FOLDER SEED COUNT

Imports, networks and figures are made once; each sweep is a fork of this process, which has one thread. It
kills at every kind of change of every kind of file, and at COUNT pairs of points drawn by SEED. Prints the
names of the points, as they were in an undisturbed sweep, and what went wrong, which should be nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from sd2eval import checkpoints, events, plots, sweep
from sd2eval.config import from_overrides
from sd2eval.store import RunFolder
from sd2eval.verification.verify import inspect
from tests.reliability.kill_shim import Points, watching

WORDS = (
    "experiment=smoke",
    "checkpoints=[512-base]",
    "guidance_scales=[1.5]",
    "prompts.n=5",
    "shard_size=3",
    "sampler.steps=1",
    "protocol.metrics=[fd_mini,clip_mini]",
    "progress=false",
)
LANES = 2
"""Sweeps at a time."""
RANDOM = re.compile(r"[0-9a-f]{8}\b|\d+")
"""What differs between two files of a kind."""


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works at its first call only, which is before the forks."""
    made: list[Any] = []

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not made:
            made.append(function(*arguments, **named))
        return made[0]

    return call


def prepare() -> None:
    """Keep for the forks what takes longest; none of it writes into a run folder by itself."""
    torch.set_num_threads(1)
    sweep.load_networks = once(sweep.load_networks)
    checkpoints.load = once(checkpoints.load)
    plots.pareto_figure = once(plots.pareto_figure)
    before, drawn = Figure.savefig, dict[str, bytes]()

    def savefig(self: Figure, target: io.BytesIO, **named: Any) -> None:
        if named["format"] not in drawn:
            buffer = io.BytesIO()
            before(self, buffer, **named)
            drawn[named["format"]] = buffer.getvalue()
        target.write(drawn[named["format"]])

    Figure.savefig = savefig  # type: ignore[method-assign]


def state(out: Path) -> str:
    """Return the digest of all that a run found, without times and energy."""
    store, total = RunFolder(out), hashlib.sha256()
    for name in ("results.csv", "results.json", "prompts.json", "reference.npz", "pareto.png", "pareto.svg"):
        total.update((out / name).read_bytes())
    for block in store.blocks("512-base"):
        manifest = store.read_manifest("512-base", block)
        total.update(json.dumps([block.key, manifest["images"], manifest["features_sha256"]]).encode())
    for file in sorted([*out.glob("images/*/*.png"), *out.glob("sheets/*.png")]):
        total.update(str(file.relative_to(out)).encode() + file.read_bytes())
    return total.hexdigest()


def forked(work: Callable[[], None]) -> tuple[int, str]:
    """Do something in a child; return how it ended (-9: killed) and, of a failure, its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os.write(writer, traceback.format_exc()[-3000:].encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


class Kills:
    """The same sweep again and again, each time killed at another point."""

    def __init__(self, folder: Path) -> None:
        prepare()
        self._given = from_overrides(*WORDS)
        self.folder, calm = folder, folder / "calm"
        self.run(folder / "warm")
        points = Points(calm)
        with watching(points):
            self.run(calm)
        self.names, self.expected = points.names, state(calm)
        gc.freeze()  # a collection in a fork would copy all that is loaded

    def run(self, out: Path) -> None:
        """Run or resume the sweep."""
        config, definitions = self._given
        sweep.sweep(dataclasses.replace(config, out=str(out)), definitions)

    def chosen(self, seed: int, count: int) -> list[list[int]]:
        """Return the first point of each kind, and some pairs: the sweep that resumes is killed as well."""
        kinds: dict[str, int] = {}
        for number, name in enumerate(self.names):
            kinds.setdefault(RANDOM.sub("*", name), number)
        drawn, length = random.Random(seed), len(self.names)
        pairs = [[drawn.randrange(length), drawn.randrange(length)] for _ in range(count)]
        return [*([number] for number in kinds.values()), *pairs]

    def fault(self, out: Path, points: Sequence[int]) -> str:
        """Kill a sweep at a point, and again where it is resumed; return what went wrong."""
        shutil.rmtree(out, ignore_errors=True)
        for number, point in enumerate(points):
            code, said = forked(functools.partial(self._disturbed, out, point))
            reached_the_end = number > 0 and code == 0  # it had less to do
            if code != -signal.SIGKILL and not reached_the_end:
                return f"it was not killed but ended with {code}: {said}"
        code, said = forked(functools.partial(self._resumed, out))
        if code:
            return said
        return "" if state(out) == self.expected else "another result than undisturbed"

    def _disturbed(self, out: Path, point: int) -> None:
        with watching(Points(out, point)):
            self.run(out)

    def _resumed(self, out: Path) -> None:
        if RunFolder(out).exists:
            found = inspect(RunFolder(out))
            assert found.whole, f"damaged by the kill: {found.findings}"
        self.run(out)
        found = [
            one for one in inspect(RunFolder(out)).findings if one.path != events.FILE
        ]  # a line may be cut
        assert not found, f"not whole after it was resumed: {found}"

    def faults(self, kills: Sequence[list[int]]) -> list[str]:
        """Return what went wrong after each kill, several at a time."""
        children = [os.fork() or self._lane(number, kills[number::LANES]) for number in range(LANES)]
        for child in children:
            os.waitpid(child, 0)
        answers = [json.loads((self.folder / f"lane{number}.json").read_text()) for number in range(LANES)]
        return [answers[number % LANES][number // LANES] for number in range(len(kills))]

    def _lane(self, number: int, kills: Sequence[list[int]]) -> int:
        found = [self.fault(self.folder / f"lane{number}", points) for points in kills]
        (self.folder / f"lane{number}.json").write_text(json.dumps(found))
        os._exit(0)


if __name__ == "__main__":
    again = Kills(Path(sys.argv[1]).resolve())
    chosen = again.chosen(int(sys.argv[2]), int(sys.argv[3]))
    answers = zip(chosen, again.faults(chosen), strict=True)
    print(json.dumps([[[again.names[point] for point in points], fault] for points, fault in answers]))
