"""The folder that probes write into: one of their own, or that of a sweep, which they join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sd2eval.checkpoints import Weights
from sd2eval.config import CheckpointConfig, ProbeConfig
from sd2eval.errors import InputError
from sd2eval.records import RunInfo
from sd2eval.store import TEMPORARY, RunFolder

OWN = {"probes", "probes.csv", "probes.md", "probes.json", ".lock"}


def refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds neither probes nor a sweep's run, before anything is written into it.

    Raises:
        InputError: names the folder and the first file that is not theirs.
    """
    if out.is_file():
        raise InputError(f"out={out}: is a file; give a folder")
    if not out.exists() or RunFolder(out).exists:
        return
    others = {entry.name for entry in out.iterdir() if not entry.name.startswith(TEMPORARY)} - OWN
    if others:
        raise InputError(f"out={out}: holds {min(others)} but neither probes nor a run; give another folder")


def differences(
    out: Path,
    config: ProbeConfig,
    definitions: Sequence[CheckpointConfig],
    weights: Mapping[str, Weights],
    dtype: str,
) -> list[str]:
    """Return in which ways the probes draw otherwise than the sweep whose folder they join; none without one.

    Raises:
        InputError: a checkpoint of the same name has other weights there.
    """
    store = RunFolder(out)
    if not store.exists:
        return []
    info = store.read_info()
    for definition in definitions:
        there = info.digests.get(f"weights/{definition.name}")
        here = weights[definition.name].digest
        if there not in (None, here):
            raise InputError(
                f"out={out}: its '{definition.name}' has other weights ({there[:12]}..., here "
                f"{here[:12]}...); give another out=DIR"
            )
    return [*_settings(info, config, dtype), *_checkpoints(info, definitions)]


def _settings(info: RunInfo, config: ProbeConfig, dtype: str) -> list[str]:
    there = info.config
    pairs: dict[str, tuple[Any, Any]] = {
        "seed": (there["seed"], config.seed),
        "sampler.steps": (there["sampler"]["steps"], config.sampler.steps),
        "sampler.eta": (there["sampler"]["eta"], config.sampler.eta),
        "dtype": (there["dtype"], dtype),
        "protocol": (there["protocol"]["name"], config.protocol.name),
        "data": (there["data"]["name"], config.data.name),
    }
    return [
        f"{key}: the run has {run}, the probes have {own}" for key, (run, own) in pairs.items() if run != own
    ]


def _checkpoints(info: RunInfo, definitions: Sequence[CheckpointConfig]) -> list[str]:
    known = info.config["checkpoint_definitions"]
    absent = [definition.name for definition in definitions if definition.name not in known]
    return [f"checkpoints: {', '.join(absent)} not in the run"] if absent else []
