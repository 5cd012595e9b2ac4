"""A plug-in whose extractor fails as an accelerator, memory or a disk does, where a test wants it to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.installed import ROOT, declare

EXTRACTOR = """
import os, resource, signal, sys
import numpy as np
import torch
from pathlib import Path
from sd2eval import checkpoints
from sd2eval.extractors.base import Extractor

load_checkpoint = checkpoints.load

def load(config, device):
    drives = sys.modules["__main__"].__spec__.name == "sd2eval.__main__"
    if os.environ["WHERE"] == ("driver" if drives else "start"):
        strike()
    if os.environ["WHERE"] == "checkpoint":
        checkpoints.load = second_fails
    return Extractor(name=config.name, digest="0" * 64, images=values)

def values(images):
    if os.environ["WHERE"] == "shard" and len(images) > 2:  # it is tried with two before a sweep begins
        strike()
    return {"value": images.mean(axis=(1, 2, 3), dtype=np.float32)}

def second_fails(definition, *others):
    if definition.name == "x4-upscaling":
        strike()
    return load_checkpoint(definition, *others)

def strike():
    for number in range(len(list(filter(None, os.environ["SAYS"].split(";"))))):
        try:
            os.close(os.open(Path(os.environ["MARKS"], str(number)), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        said = os.environ["SAYS"].split(";")[number]
        if said == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if said == "DISK":
            return resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        raise (torch.OutOfMemoryError if "out of memory" in said else torch.AcceleratorError)(said)
"""
METRICS = """
from sd2eval.metrics import Metric, mean_of_images
METRICS = [Metric(name="broken", label="broken", describes="", direction="higher", unit="", kind="other",
    extractor="broken", output="value", estimate=mean_of_images)]
"""
SETTINGS = """
defaults:
  - schema
  - _self_
name: broken
kind: broken
model: null
pretrained: null
source: null
preprocess: null
dtype: float32
batch_size: 64
"""
WORDS = ("experiment=smoke", "protocol.metrics=[clip_mini,broken]", "prompts.n=8", "shard_size=2")


def install(site: Path) -> Path:
    """Install the plug-in into a folder and return it."""
    files = {"broken.py": EXTRACTOR, "broken_metrics.py": METRICS, "broken_conf/__init__.py": ""}
    files["broken_conf/extractor/broken.yaml"] = SETTINGS
    entries = {"extractors": "broken", "metrics": "broken_metrics", "conf": "broken_conf"}
    return declare(site, files, {f"sd2eval.{group}/broken": module for group, module in entries.items()})


def sweep(
    folder: Path, *words: str, faults: tuple[str, ...] = (), where: str = "shard"
) -> subprocess.CompletedProcess[str]:
    """Run a sweep into `folder/run`.

    Args:
        folder: holds the plug-in as well.
        words: further settings.
        faults: what the first shards' processes meet: the message of an error, `SIGKILL`, or `DISK` for one
            that is full.
        where: they meet it: in a `shard`, while the metrics' networks load in the `driver` or at the `start`
            of another worker, or while the second `checkpoint` loads.
    """
    (folder / "marks").mkdir(exist_ok=True)
    path = os.pathsep.join([str(install(folder / "site")), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200", "SAYS": ";".join(faults)}
    environment |= {"MARKS": str(folder / "marks"), "WHERE": where}
    command = [sys.executable, "-m", "sd2eval", "sweep", *WORDS, f"out={folder / 'run'}", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
