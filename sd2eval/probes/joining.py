"""The folder that probes write into: one of their own, or that of a sweep, which they join."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sd2eval.checkpoints import Weights
from sd2eval.config import CheckpointConfig, ProbeConfig, PromptsConfig, identity_fields
from sd2eval.dataset import load_dataset
from sd2eval.errors import InputError
from sd2eval.floors import same_images
from sd2eval.metrics import ROLES
from sd2eval.probes import records
from sd2eval.records import RunInfo
from sd2eval.reference import files_digest
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
    fields = _fields(config, definitions, dtype)
    return [
        *(_line(name, info.identity_fields[key], own) for name, key, own in fields if _other(info, key, own)),
        *_data(info, config),
        *_networks(info, out, config),
        *_checkpoints(info, definitions),
    ]


def _fields(
    config: ProbeConfig, definitions: Sequence[CheckpointConfig], dtype: str
) -> Iterator[tuple[str, str, Any]]:
    """Yield the settings that a sweep has too: their names here and in the record of a run, and their values.

    Which metrics a sweep computes moves no number of a probe.
    """
    yield "seed", "seed", config.seed
    yield "captions_seed", "prompts.seed", config.captions_seed
    yield "dtype", "dtype", dtype
    own = identity_fields(config.sampler, "sampler.") | identity_fields(config.protocol, "protocol.")
    own |= identity_fields(config.data, "data.")
    for definition in definitions:
        own |= identity_fields(definition, f"checkpoints.{definition.name}.")
    for key, value in own.items():
        if not key.startswith(("protocol.metrics", "protocol.extractors.")):
            yield key, key, value


def _other(info: RunInfo, key: str, own: Any) -> bool:
    """Whether a run has another value; a field that an earlier version did not record is no difference."""
    return key in info.identity_fields and info.identity_fields[key] != own


def _line(name: str, run: Any, own: Any) -> str:
    return f"{name}: the run has {run}, the probes have {own}"


def _data(info: RunInfo, config: ProbeConfig) -> Iterator[str]:
    """Yield whether captions or real images are others."""
    everything = PromptsConfig(n="auto", seed=config.captions_seed, first=2, most=None)
    dataset = load_dataset(config.data, everything, [])
    there = info.digests.get("data/captions")
    if there not in (None, dataset.captions_digest):
        yield _line("captions", f"{there[:12]}...", f"{dataset.captions_digest[:12]}...")
    files = files_digest(dataset.reference)
    if not same_images(files, info):
        yield _line(
            "real images", f"{info.reference_n} others", f"{len(dataset.reference)} ({files[:12]}...)"
        )


def _networks(info: RunInfo, out: Path, config: ProbeConfig) -> Iterator[str]:
    """Yield which networks of the protocol are others, as far as probes in the folder have used them."""
    used = {name: value for one in records.read(out) for name, value in one.digests.items()}
    for role in ROLES:
        name = config.protocol.extractor(role).name
        there, here = info.digests.get(f"extractor/{role}"), used.get(name)
        if there and here and there != here:
            yield _line(f"protocol.{role} ({name})", f"{there[:12]}...", f"{here[:12]}...")


def _checkpoints(info: RunInfo, definitions: Sequence[CheckpointConfig]) -> list[str]:
    known = info.config["checkpoint_definitions"]
    absent = [definition.name for definition in definitions if definition.name not in known]
    return [f"checkpoints: {', '.join(absent)} not in the run"] if absent else []
