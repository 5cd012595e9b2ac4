"""The mini family's files: float16 weights, configs, and the training log with the machine that made them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_half(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors as float16 safetensors; refuses values that float16 cannot hold."""
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in tensors.items()}
    for name, value in half.items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"{name} does not fit into float16")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone, which an installed package must not be


def load_float(path: Path) -> dict[str, Tensor]:
    """Reads float16 safetensors and upcasts to float32, so that the stored rounding is what is evaluated."""
    return {name: value.float() for name, value in load_file(path).items()}


def write_json(value: Any, path: Path) -> None:
    """Writes indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def log_entry(out: Path, name: str, entry: dict[str, Any]) -> None:
    """Puts one component's entry into ``TRAINING.json``, locked: two trainings may do so at once."""
    path = out / "TRAINING.json"
    with _lock(out / ".work" / "log.lock"):
        log = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"components": {}}
        log["components"][name] = entry | {"machine": machine(), "code": code_digest()}
        write_json(log, path)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def machine() -> dict[str, Any]:
    """CPU model, cores and library version, as a training log needs them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def code_digest() -> str:
    """SHA-256 over this package's Python files: which code made the weights."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
