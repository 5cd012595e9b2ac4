"""`sweep` commands as processes of their own, and the ways to disturb them."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from sd2eval.images import digest, load_rgb
from sd2eval.plan import Cell
from sd2eval.store import RunFolder
from tests.engines.nursery import nursery

ROOT = Path(__file__).parents[2]
SMALL = ("experiment=smoke", "prompts.n=6", "shard_size=1", "device=cpu")
SMALL += ("protocol.metrics=[fd_mini,clip_mini,psnr]",)
LAST = "x4-upscaling/000005-000005"
"""The last shard of such a run; it reads the image of the last caption."""
MARK = "SD2EVAL_TEST_MARK"
PATIENCE = 240.0


class Command:
    """One command in a process group of its own, as a terminal starts it; what it starts is found again."""

    def __init__(self, out: Path, words: tuple[str, ...], worker: str) -> None:
        self.out, self._worker, self._mark = out, worker, uuid.uuid4().hex
        self._log = out.parent / f"{self._mark}.log"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", MARK: self._mark}
        self._log.touch()
        self.process = nursery().bear(["sweep", *words, f"out={out}"], out.parent, environment, self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in [self.process, *self.members()]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                member.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """What it and its workers have printed to stderr."""
        return self._log.read_text(errors="replace")

    def members(self) -> list[psutil.Process]:
        """Return every living process that it has started, itself included, also orphans."""
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def workers(self) -> list[psutil.Process]:
        """Return those that make shards."""
        found = []
        for process in self.members():
            with suppress(psutil.NoSuchProcess):
                if process.pid != self.process.pid and re.search(self._worker, " ".join(process.cmdline())):
                    found.append(process)
        return found

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for its end and return the exit code."""
        self.until(lambda: self.process.poll() is not None, seconds)
        return self.process.returncode

    def all_end(self, seconds: float) -> None:
        """Wait until none of its processes is left."""
        self.process.wait(seconds)
        self.until(lambda: not self.members(), seconds)

    def until(self, true: Callable[[], Any], seconds: float = PATIENCE) -> None:
        """Wait until something holds; shows what was printed if it never does."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"waited {seconds} s in vain; left: {self.members()}; {self.log}"
            time.sleep(0.01)

    def until_working(self, file: str) -> None:
        """Wait until a file of its run folder is there, while it still runs."""
        self.until(lambda: list(self.out.glob(file)) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal as a terminal does, to the whole group."""
        os.killpg(self.process.pid, number)

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.pid == self.process.pid or process.environ().get(MARK) == self._mark
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            return False


@dataclass(frozen=True)
class Result:
    """What must not depend on who made a run."""

    results: bytes
    images: dict[str, list[tuple[int, float, str]]]
    """By checkpoint: caption id, guidance scale and digest of every image."""


def result(out: Path) -> Result:
    """Read a run, and see that its pictures are what its manifests say and that nothing else is left."""
    store = RunFolder(out)
    images: dict[str, list[tuple[int, float, str]]] = {}
    for name in sorted(folder.name for folder in (out / "shards").iterdir()):
        records = [row for block in store.blocks(name) for row in store.read_manifest(name, block)["images"]]
        images[name] = sorted((row["caption_id"], row["guidance_scale"], row["sha256"]) for row in records)
        for caption, scale, sha256 in images[name]:
            assert digest(load_rgb(store.image_folder(Cell(name, scale)) / f"{caption}.png")) == sha256
    assert not list(out.rglob("*tmp*"))
    assert not (out / "failed").exists()
    assert not (out / "claims").exists()
    return Result((out / "results.csv").read_bytes(), images)


def published(out: Path) -> dict[Path, int]:
    """Return the published shards and when each was made."""
    return {path: path.stat().st_mtime_ns for path in out.glob("shards/*/0*")}


@contextmanager
def reading(command: Command, image: Path) -> Iterator[psutil.Process]:
    """Let a worker get stuck in the middle of a shard, at its caption's image, and yield it.

    The image is a pipe that somebody holds open and writes nothing into; by the time of the yield it is a
    file again for whoever opens it next.
    """
    whole, pipe = image.with_suffix(".whole"), image.with_suffix(".pipe")
    whole.write_bytes(image.read_bytes())
    os.mkfifo(pipe)
    pipe.replace(image)
    writers: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # nobody reads yet
            writers.append(os.open(image, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    def readers() -> list[psutil.Process]:
        return [process for process in command.members() if _has_open(process, image)]

    try:
        command.until(is_read)
        command.until(readers)  # a moment later, when the reader's own call has returned
        (reader,) = readers()
        whole.replace(image)
        yield reader
    finally:
        for writer in writers:
            os.close(writer)


def _has_open(process: psutil.Process, file: Path) -> bool:
    with suppress(FileNotFoundError):  # it has closed something, or ended, meanwhile
        return file in [link.readlink() for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    return False
