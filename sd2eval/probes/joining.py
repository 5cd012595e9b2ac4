"""The folder that probes write into: one of their own, or that of a sweep, which they join."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sd2eval.checkpoints import Weights
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError
from sd2eval.floors import same_images
from sd2eval.metrics import ROLES
from sd2eval.probes.records import Measured
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


def refuse_other_weights(
    out: Path, definitions: Sequence[CheckpointConfig], weights: Mapping[str, Weights]
) -> None:
    """Refuse the folder of a sweep whose checkpoints have other weights, before anything is drawn.

    Raises:
        InputError: a checkpoint of the same name has other weights there.
    """
    store = RunFolder(out)
    digests = store.read_info().digests if store.exists else {}
    for definition in definitions:
        there = digests.get(f"weights/{definition.name}")
        here = weights[definition.name].digest
        if there not in (None, here):
            raise InputError(
                f"out={out}: its '{definition.name}' has other weights ({there[:12]}..., here "
                f"{here[:12]}...); give another out=DIR"
            )


def differences(out: Path, measured: Sequence[Measured]) -> dict[str, list[str]]:
    """Return in which ways each answer was measured otherwise than the sweep whose folder it joined, by stem.

    They come from what an answer rests on, so those of earlier calls stay. Without a sweep there are none.
    """
    store = RunFolder(out)
    if not store.exists:
        return {}
    info = store.read_info()
    return {one.stem: list(_otherwise(one, info)) for one in measured}


def _otherwise(one: Measured, info: RunInfo) -> Iterator[str]:
    if one.checkpoint not in info.config["checkpoint_definitions"]:
        yield f"checkpoints: {one.checkpoint} is not in the run"
    for key, own in one.fields.items():
        there = _key_of_run(key, one.checkpoint)
        # A field that an earlier version did not record is no difference.
        if there in info.identity_fields and info.identity_fields[there] != own:
            yield _line(there if key.startswith("checkpoint.") else key, info.identity_fields[there], own)
    for name, there in (("captions", "data/captions"), ("weights", f"weights/{one.checkpoint}")):
        own, of_run = one.fields[f"digests.{name}"], info.digests.get(there)
        if of_run not in (None, own):
            yield _line(name, _short(of_run), _short(own))
    if not same_images(one.fields["digests.images"], info):
        yield _line("real images", f"{info.reference_n} others", _short(one.fields["digests.images"]))
    for role in ROLES:
        name = one.fields[f"protocol.{role}.name"]
        network, used = info.digests.get(f"extractor/{role}"), one.digests.get(name)
        if network and used and network != used:
            yield _line(f"protocol.{role} ({name})", _short(network), _short(used))


def _key_of_run(key: str, checkpoint: str) -> str:
    """Return what the record of a run calls a field of an answer; empty for one that only probes have."""
    if key.startswith("checkpoint."):
        return f"checkpoints.{checkpoint}.{key.removeprefix('checkpoint.')}"
    if key in ("seed", "dtype") or key.startswith(("sampler.", "protocol.")):
        return key
    return "prompts.seed" if key == "captions_seed" else ""


def _line(name: str, run: Any, own: Any) -> str:
    return f"{name}: the run has {run}, the probes have {own}"


def _short(digest: str) -> str:
    return f"{digest[:12]}..."
