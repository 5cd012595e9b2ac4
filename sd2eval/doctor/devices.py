"""torch, torchvision and the devices that they see."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from sd2eval.transfer.meter import format_bytes

SECONDS = 60.0
"""For torch to be imported: gigabytes, which may come from a disk on the network."""
SMALL_GPU = 10e9
"""Bytes: Stable Diffusion 2 in half precision with the extractors in float32 beside it."""
NVIDIA = Path("/dev/nvidiactl")
REINSTALL = "install both from the same index, in one command: pip install torch torchvision"
TRY = f"try it alone: {Path(sys.executable).name} -c 'import torch'"


class TorchUnusableError(Exception):
    """torch could not be asked; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


def ask() -> dict[str, Any]:
    """Return what torch says in a process of its own, see `torch_facts`.

    Raises:
        TorchUnusableError: it cannot be imported, crashes or does not answer.
    """
    program = Path(__file__).with_name("torch_facts.py").read_text()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        found = f"importing it or asking the driver took more than {SECONDS:g} s"
        raise TorchUnusableError(Finding("torch", WARNING, found, TRY)) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"the process ended with code {done.returncode}"])[-1]
        raise TorchUnusableError(Finding("torch", PROBLEM, f"cannot be used: {last}", f"{REINSTALL}; {TRY}"))
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def torch(facts: dict[str, Any]) -> Iterator[Finding]:
    """Say which torch this is, and whether torchvision is of the same build."""
    made_for = f"CUDA {facts['cuda']}" if facts["cuda"] else f"ROCm {facts['hip']}" if facts["hip"] else "CPU"
    yield Finding("torch", OK, f"{facts['version']}, built for {made_for}")
    ours, theirs = build(facts["version"]), build(facts["torchvision"])
    if facts["torchvision_error"]:
        found = (
            f"torchvision cannot be imported beside torch {facts['version']}: {facts['torchvision_error']}"
        )
        yield Finding("torchvision", PROBLEM, found, REINSTALL)
    elif "cpu" in (ours, theirs) and ours != theirs and ours and theirs:
        found = f"torch {facts['version']} and torchvision {facts['torchvision']} are of different builds"
        yield Finding("torchvision", PROBLEM, found, REINSTALL)
    elif (ours == "cpu") != (theirs == "cpu"):
        found = (
            f"torch {facts['version']} beside torchvision {facts['torchvision']}: one is a CPU build alone"
        )
        yield Finding("torchvision", WARNING, found, REINSTALL)
    else:
        yield Finding("torchvision", OK, f"{facts['torchvision']}, can be imported")


def build(version: str) -> str:
    """Return what a version names its build: `cpu` of `2.12.0+cpu`, nothing of `2.12.0`."""
    return version.partition("+")[2]


def devices(facts: dict[str, Any], wanted: str) -> Iterator[Finding]:
    """Say which devices there are, and whether the one in `device=` is among them."""
    if facts["cuda_error"]:
        advice = "check the driver: nvidia-smi"
        yield Finding("devices", WARNING, f"CUDA fails: {facts['cuda_error']}", advice, about="cuda")
    for gpu in facts["gpus"]:
        yield _gpu(gpu, facts["driver"])
    if facts["mps"]:
        yield Finding("devices", OK, "Apple's GPU (mps)", about="mps")
    if not facts["gpus"] and not facts["mps"]:
        yield _no_gpu(facts)
    if not _is_there(facts, wanted):
        known = ", ".join(["cpu", *(f"cuda:{gpu['index']}" for gpu in facts["gpus"])])
        yield Finding("devices", PROBLEM, f"device={wanted} is not here", f"device=auto, or: {known}", wanted)


def _gpu(gpu: dict[str, Any], driver: str) -> Finding:
    about = f"cuda:{gpu['index']}"
    if gpu["error"]:
        advice = f"another process may hold it: nvidia-smi -i {gpu['index']}"
        return Finding("devices", WARNING, f"{about} cannot be used: {gpu['error']}", advice, about)
    found = f"{about} {gpu['name']}, {format_bytes(gpu['free'])} free of {format_bytes(gpu['total'])}"
    found += f", compute capability {gpu['capability']}" + (f", driver {driver}" if driver else "")
    if gpu["total"] < SMALL_GPU:
        advice = "512-pixel checkpoints need about 10 GB with their extractors: batch_size=1, or device=cpu"
        return Finding("devices", WARNING, found, advice, about)
    if gpu["free"] < gpu["total"] / 2:
        advice = f"other programs use more than half of it: nvidia-smi -i {gpu['index']}"
        return Finding("devices", WARNING, found, advice, about)
    return Finding("devices", OK, found, about=about)


def _no_gpu(facts: dict[str, Any]) -> Finding:
    if NVIDIA.exists() and not facts["cuda"]:
        advice = "install the CUDA build: pip install --force-reinstall torch torchvision"
        return Finding("devices", WARNING, "an NVIDIA GPU is here, but torch is built without CUDA", advice)
    if NVIDIA.exists() or facts["driver"]:
        advice = "check CUDA_VISIBLE_DEVICES, and the driver's version: nvidia-smi"
        return Finding("devices", WARNING, "an NVIDIA driver is here, but torch sees no GPU", advice)
    return Finding("devices", OK, "cpu only: enough for the mini study, not for the real one", about="cpu")


def _is_there(facts: dict[str, Any], wanted: str) -> bool:
    if wanted in ("auto", "cpu"):
        return True
    if wanted == "mps":
        return bool(facts["mps"])
    index = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    usable = {gpu["index"] for gpu in facts["gpus"] if not gpu["error"]}
    return index is not None and int(index[1] or 0) in usable
