"""Memory that runs out: the batch is halved, the images stay the same, and it is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sd2eval.checkpoints import Checkpoint
from sd2eval.memory import in_smaller_batches, is_out_of_memory
from sd2eval.plan import Block
from sd2eval.progress import Progress
from sd2eval.store import RunFolder
from sd2eval.worker import Task
from tests.engines.test_local import enlisted

Rows = TypeVar("Rows", torch.Tensor, np.ndarray)
ROOT = Path(__file__).parents[1]

# A child whose address space ends soon after everything is loaded: torch's own allocator then says no.
CHILD = """
import re, resource, sys
import matplotlib.backends.backend_agg, matplotlib.backends.backend_svg
import sd2eval
from sd2eval import worker
spare = int(sys.argv[1])
before = worker.Worker._sample
def limited(*arguments):
    if spare:
        size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))
    return before(*arguments)
worker.Worker._sample = limited
sd2eval.run_sweep(*sys.argv[2:])
"""


def test_work_is_repeated_in_halves_until_it_fits() -> None:
    asked: list[int] = []

    def work(size: int) -> str:
        asked.append(size)
        if size > 3:
            raise torch.OutOfMemoryError
        return "done"

    smaller: list[int] = []
    assert in_smaller_batches(work, 24, smaller.append) == ("done", 3)
    assert asked == [24, 12, 6, 3]
    assert smaller == [12, 6, 3]


def test_what_one_row_cannot_have_is_an_error() -> None:
    def work(size: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        in_smaller_batches(work, 8, lambda size: None)


def test_other_errors_are_not_taken_for_memory() -> None:
    def work(size: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_smaller_batches(work, 8, lambda size: pytest.fail("tried again"))


def test_the_cpu_allocator_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def run(out: Path, spare: int) -> tuple[pd.DataFrame, list[str]]:
    words = [
        "experiment=smoke",
        "checkpoints=[512-base]",
        "prompts.n=96",
        "sampler.steps=2",
        "batch_size=192",
    ]
    words += ["shard_size=96", "protocol.metrics=[fd_mini,clip_mini]", "progress=false", f"out={out}"]
    command = [sys.executable, "-c", CHILD, str(spare), *words]
    subprocess.run(command, cwd=ROOT, check=True, env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
    notes = [json.loads(file.read_text())["note"] for file in sorted((out / "sessions").glob("*.json"))]
    return pd.read_csv(out / "results.csv"), notes


def test_a_sweep_short_of_memory_makes_the_same_images_in_smaller_batches(tmp_path: Path) -> None:
    plain, quiet = run(tmp_path / "plain", 0)
    assert not any("out of memory" in note for note in quiet)
    for spare in (160, 120, 90):  # how much is just too little depends on the machine's libraries
        out = tmp_path / str(spare)
        short, notes = run(out, spare * 2**20)
        if any("out of memory: from then on" in note for note in notes):
            break
    else:
        pytest.fail("memory never ran out")
    np.testing.assert_allclose(short["value"], plain["value"], rtol=1e-3)
    for file in sorted((tmp_path / "plain" / "images" / "512-base_g3").iterdir())[:10]:
        other = out / "images" / "512-base_g3" / file.name
        apart = np.abs(np.asarray(Image.open(file)).astype(int) - np.asarray(Image.open(other)))
        assert apart.max() <= 1


@pytest.mark.parametrize("name", ["512-base", "x4-upscaling"])
def test_decoder_and_metrics_get_fewer_images_at_a_time(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(name, Block(0, 2), (1.5, 3.0))
    enlisted(tmp_path / "plain", Progress(6, quiet=True)).run(task)
    worker = enlisted(tmp_path / "short", Progress(6, quiet=True))
    decode, features = Checkpoint.decode, worker.networks.by_slot["distance"].images
    assert features is not None

    def narrow_decode(checkpoint: Checkpoint, latents: torch.Tensor) -> torch.Tensor:
        return decode(checkpoint, of_two(latents))

    monkeypatch.setattr(Checkpoint, "decode", narrow_decode)
    object.__setattr__(worker.networks.by_slot["distance"], "images", lambda images: features(of_two(images)))
    worker.run(task)

    wanted, found = (RunFolder(tmp_path / run).read_shard(name, task.block) for run in ("plain", "short"))
    assert wanted[0].keys() == found[0].keys()
    for key, array in wanted[0].items():
        np.testing.assert_allclose(found[0][key], array, rtol=1e-3, atol=1e-3, err_msg=key)
    assert [one["caption_id"] for one in found[1]["images"]] == [
        one["caption_id"] for one in wanted[1]["images"]
    ]
    assert worker.session.notes == [
        "out of memory: from then on 3 images per decoder call",
        "out of memory: from then on 1 images per decoder call",
        "out of memory: from then on 3 images per call of a metric's network",
        "out of memory: from then on 1 images per call of a metric's network",
    ]


def of_two(rows: Rows) -> Rows:
    """Hand on what has memory: two rows at most."""
    if len(rows) > 2:
        raise torch.OutOfMemoryError
    return rows
