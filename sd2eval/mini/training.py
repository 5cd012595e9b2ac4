"""What every training of the mini family shares: a resumable loop, EMA weights, files, the training log."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SAVE_EVERY_SECONDS = 120.0
_WARMUP_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where a training writes, on what it runs, and how much of it to do.

    ``out`` receives finished weights; ``out/.work`` holds the rendered training set and unfinished
    checkpoints and may be deleted afterwards. ``shrink`` divides every number of steps and scenes (1 for the
    real thing).
    """

    out: Path
    device: torch.device
    shrink: int = 1

    @property
    def work(self) -> Path:
        """Folder of everything that is not a result."""
        folder = self.out / ".work"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        return folder

    def steps(self, full: int) -> int:
        """A number of steps or scenes, shrunk for a quick run."""
        return max(2, full // self.shrink)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The numbers of one training; ``precision`` is the autocast type of the forward pass."""

    name: str
    steps: int
    batch: int
    rate: float
    seed: int
    weight_decay: float = 0.01
    ema: float = 0.999
    precision: torch.dtype = torch.float32


@dataclass(slots=True)
class _Progress:
    step: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)


def fit(shop: Workshop, recipe: Recipe, model: nn.Module, loss: Callable[[int], Tensor]) -> dict[str, Any]:
    """Minimise ``loss(step)`` over ``model``'s parameters.

    Leaves the EMA weights in ``model`` and returns the log entry.
    ``loss`` must draw everything from generators seeded by ``step`` (see :func:`generator`), so that a run
    that was killed and started again sees the same batches as one that was not.
    """
    total = shop.steps(recipe.steps)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.99)
    )
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    path = shop.work / f"{recipe.name}.pt"
    progress = _restore(path, model, optimizer, average)
    model.train()
    started, cpu_started, saved = time.perf_counter(), time.process_time(), time.perf_counter()
    running = 0.0
    while progress.step < total:
        value = _descend(recipe, model, optimizer, loss, progress.step, total, shop.device)
        progress.step += 1
        _follow(average, model, min(recipe.ema, progress.step / (progress.step + 9)))
        running = value if progress.step <= 1 else 0.98 * running + 0.02 * value
        if progress.step % max(1, total // 40) == 0:
            progress.losses.append((progress.step, round(running, 6)))
            print(f"{recipe.name} {progress.step}/{total} loss {running:.5f}", flush=True)
        if time.perf_counter() - saved > SAVE_EVERY_SECONDS or progress.step == total:
            now, cpu_now = time.perf_counter(), time.process_time()
            progress.wall_seconds += now - started
            progress.cpu_seconds += cpu_now - cpu_started
            started, cpu_started, saved = now, cpu_now, now
            _save(path, model, optimizer, average, progress)
    model.load_state_dict(average)
    model.eval()
    return _entry(recipe, progress)


def _descend(
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[int], Tensor],
    step: int,
    total: int,
    device: torch.device,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate * _schedule(step, total)
    with torch.autocast(device.type, recipe.precision, enabled=recipe.precision != torch.float32):
        value = loss(step)
    if not torch.isfinite(value):
        raise FloatingPointError(f"{recipe.name}: the loss is {value.item()} at step {step}")
    optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(value.detach())


def _schedule(step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 2% of the rate."""
    warm = min(1.0, (step + 1) / min(_WARMUP_STEPS, max(1, total // 10)))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total)))


@torch.no_grad()
def _follow(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    progress: _Progress,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "progress": (progress.step, progress.wall_seconds, progress.cpu_seconds, progress.losses),
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> _Progress:
    if not path.exists():
        return _Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    step, wall, cpu, losses = state["progress"]
    return _Progress(step, wall, cpu, [(int(s), float(v)) for s, v in losses])


def _entry(recipe: Recipe, progress: _Progress) -> dict[str, Any]:
    return {
        "steps": progress.step,
        "batch": recipe.batch,
        "rate": recipe.rate,
        "seed": recipe.seed,
        "ema": recipe.ema,
        "precision": str(recipe.precision).removeprefix("torch."),
        "wall_seconds": round(progress.wall_seconds, 1),
        "cpu_seconds": round(progress.cpu_seconds, 1),
        "losses": progress.losses[:: max(1, len(progress.losses) // 10)],
    }


def generator(*key: int) -> torch.Generator:
    """A CPU generator that is a pure function of ``key``."""
    digest = hashlib.sha256(",".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
