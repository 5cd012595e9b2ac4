"""Ways to damage a run folder, and what of it was touched."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sd2eval
from sd2eval.events import FILE
from sd2eval.store import DIGESTS, RunFolder
from sd2eval.transfer.digests import file_digest

SMALL = ("experiment=smoke", "prompts.n=6", "shard_size=2", "progress=false")
KINDS = {
    "record": "run.json",
    "digests": "digests.json",
    "prompts": "prompts.json",
    "reference": "reference.npz",
    "session": "sessions/*.json",
    "manifest": "shards/512-base/000002-000003/manifest.json",
    "features": "shards/x4-upscaling/000004-000005/features.npz",
    "png": "images/512-base_g3/*.png",
    "sheet": "sheets/x4-upscaling.png",
    "results": "results.csv",
    "results as JSON": "results.json",
    "emissions": "emissions.csv",
    "front": "pareto.csv",
    "figure": "pareto.png",
    "vector figure": "pareto.svg",
    "index": "report.json",
}
"""One file of every kind that a run folder has."""
TABLES = {"results.csv", "results.json", "emissions.csv", "report.json"}
TABLES |= {f"pareto.{kind}" for kind in ("csv", "png", "svg")}


def make(folder: Path) -> Path:
    """Sweep a run of 24 images in 6 shards."""
    return sd2eval.run_sweep(*SMALL, f"out={folder}").path


def leave(run: Path) -> dict[str, str]:
    """Leave what engines leave in the folder of a run that is not finished, and return it by name."""
    failure = {"checkpoint": "x4-upscaling", "captions": [2, 3], "attempts": 3, "reason": "no GPU is left"}
    left = {
        ".writer": "token",
        "claims/token/x4-upscaling-000002-000003.claim": "{",
        "failed/x4-upscaling-000002-000003.json": json.dumps(failure),
        "slurm/7_0_0_log.out": "sd2eval: x4-upscaling/000002-000003",
        "slurm/7_submitted.pkl": "",
    }
    for name, text in left.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    return left


def file_of(run: Path, kind: str) -> Path:
    """Return the first file of a kind."""
    return sorted(run.glob(KINDS[kind]))[0]


def copy(run: Path, to: Path) -> Path:
    """Copy a run folder with its times."""
    return shutil.copytree(run, to)


def rewrite(run: Path, name: str, data: Any) -> None:
    """Write a JSON file of a run and its digest: as if that had been run, which is no damage."""
    store = RunFolder(run)
    written = store.write_json(name, data)
    digests = store.read_digests()
    digests["files"][name] = file_digest(written)
    store.write_sealed(DIGESTS, digests)


def flip(file: Path, position: int) -> None:
    """Change one bit of one byte."""
    raw = bytearray(file.read_bytes())
    raw[position % len(raw)] ^= 1 << position % 8
    file.write_bytes(raw)


def cut(file: Path, length: int) -> None:
    """Keep the first bytes only."""
    file.write_bytes(file.read_bytes()[:length])


CAPABILITIES_3 = 0x20080522
"""Of capset(2): the version of its structures, see capabilities(7)."""
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Take away all rights to a file or folder, from root too, who else may read anything."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    mode = path.stat().st_mode
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    path.chmod(0)
    sets[0] = effective & ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0
        path.chmod(mode)


def stamps(run: Path) -> dict[str, tuple[int, bytes]]:
    """Return time of change and content of every file; not of the quarantine, the log, nor who has it now."""
    files = (
        file for file in run.rglob("*") if file.is_file() and file.name not in (".lock", ".writer", FILE)
    )
    return {
        name: (file.stat().st_mtime_ns, file.read_bytes())
        for file in files
        if not (name := file.relative_to(run).as_posix()).startswith("quarantine/")
    }


def changed(before: dict[str, tuple[int, bytes]], run: Path) -> set[str]:
    """Return the names of files that were written, made or removed since."""
    after = stamps(run)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def pixels(run: Path, digest: Callable[[Path], str]) -> dict[str, str]:
    """Return the digest of the pixels of every PNG of a run's images."""
    return {
        file.relative_to(run).as_posix(): digest(file) for file in sorted((run / "images").rglob("*.png"))
    }
