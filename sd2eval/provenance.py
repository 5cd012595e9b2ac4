"""What a run was made with: code, library versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sd2eval
from sd2eval.metrics import METRICS
from sd2eval.plugins import Origin, extractor_kinds, origin

if TYPE_CHECKING:
    from sd2eval.config import ProtocolConfig

LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "torch-fidelity",
    "torchmetrics",
    "numpy",
    "scipy",
    "pillow",
    "pycocotools",
    "codecarbon",
    "hydra-core",
)


def versions(protocol: ProtocolConfig) -> dict[str, str]:
    """Return the versions of sd2eval, Python, and the libraries and plug-ins that can move a number."""
    found = {"sd2eval": sd2eval.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found | dict(plugins_of(protocol))


def plugins_of(protocol: ProtocolConfig) -> set[Origin]:
    """Return the distributions that a protocol's metrics and their extractors come from, our own left out."""
    kinds = extractor_kinds()
    slots = {METRICS[name].extractor for name in protocol.metrics}
    modules = {METRICS.module(name) for name in protocol.metrics}
    modules |= {kinds[protocol.extractor(slot).kind] for slot in slots if slot}
    return {found for found in map(origin, modules) if found}


def plugins_in(versions: Mapping[str, str]) -> list[Origin]:
    """Return the plug-ins among the versions that a run recorded."""
    known = ("sd2eval", "python", *LIBRARIES)
    return [Origin(name, number) for name, number in versions.items() if name not in known]


def git_state() -> dict[str, Any]:
    """Return `commit` and `dirty` of the checkout sd2eval runs from; empty for an installed wheel."""
    root = Path(sd2eval.__path__[0]).parent
    if not (root / ".git").exists():
        return {}
    commit = _git(root, "rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain"))} if commit else {}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def machine(device_name: str) -> dict[str, Any]:
    """Return host, processor, cores and the device that samples."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device_name,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
