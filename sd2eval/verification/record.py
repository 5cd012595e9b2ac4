"""What was run: `run.json`, `digests.json`, `prompts.json`, `reference.npz` and the sessions."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval import evaluate
from sd2eval.config import digest
from sd2eval.prompts import rank
from sd2eval.records import SCHEMA_VERSION, Prompt, RunInfo
from sd2eval.seals import unseal
from sd2eval.stopping import AUTO
from sd2eval.store import DIGESTS, RunFolder
from sd2eval.transfer.digests import MISSING, read_checked
from sd2eval.verification.findings import Finding

SESSION_KEYS = {"grid", "note", "readings"}
LATER_KEYS = {"notes"}
"""Of a session; the first runs have none."""


def check_digests(store: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    """Return the record of digests, empty where it is damaged or the run is older, and what is wrong."""
    raw, fault = read_checked(store.path / DIGESTS)
    if fault == MISSING:
        return {}, []
    try:
        known = unseal(raw, required=True) if not fault else {}
    except ValueError:
        known, fault = {}, "is damaged: not what was written"
    return known, [Finding(path=DIGESTS, what=fault, part="digests")] if fault else []


def check_info(store: RunFolder, known: Mapping[str, Any]) -> tuple[RunInfo | None, list[Finding]]:
    """Return the run's record, from its copy where it is damaged, and what is wrong with it.

    Raises:
        InputError: there is no run, or a newer sd2eval wrote it.
    """
    recorded = known.get("files", {}).get("run.json")
    raw, fault = read_checked(store.path / "run.json", recorded)
    if fault and not recorded:
        if not (store.path / "shards").exists():
            store.read_info()  # says why there is no run
        return None, [Finding(path="run.json", what=fault, part="record")]
    if fault:
        return RunInfo(**known["run"]), [Finding(path="run.json", what=fault, part="record")]
    fault = "" if recorded else _readable(raw)
    if fault:
        return None, [Finding(path="run.json", what=fault, part="record")]
    info = store.read_info(known)
    fault = _identity_fault(info)
    return (None, [Finding(path="run.json", what=fault, part="record")]) if fault else (info, [])


def _readable(raw: bytes) -> str:
    """Return why this sd2eval cannot read a record that no digest vouches for; a newer one is no fault."""
    try:
        data = json.loads(raw)
        if int(data["schema_version"]) <= SCHEMA_VERSION:
            RunInfo(**data)
    except (ValueError, KeyError, TypeError) as error:
        return f"is damaged: not a readable run record ({error})"
    return ""


def _identity_fault(info: RunInfo) -> str:
    """Return where a run's record contradicts itself."""
    fields = info.identity_fields
    if digest(fields) != info.identity:
        return "is damaged: its identity is not the digest of its identity_fields"
    if {name: value for name, value in fields.items() if name.startswith("digests.")} != {
        f"digests.{name}": value for name, value in info.digests.items()
    }:
        return "is damaged: its digests are not those of its identity_fields"
    for name, value in fields.items():
        found = _setting(info.config, name)
        if found is not None and found != value:
            return f"is damaged: {name} is {found} in its config and {value} in its identity_fields"
    return ""


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """Return a setting by its dotted name, or None where the config has none of that name."""
    node: Any = config
    with contextlib.suppress(KeyError, TypeError):
        for part in name.split("."):
            node = node[part]
        return node
    return None


def check_prompts(
    store: RunFolder, info: RunInfo, known: Mapping[str, Any]
) -> tuple[list[int], list[Finding]]:
    """Return the caption ids in order, none where the file is damaged, and what is wrong with it."""
    raw, fault = read_checked(store.path / "prompts.json", known.get("files", {}).get("prompts.json"))
    try:
        prompts = json.loads(raw) if not fault else []
        fault = fault or _prompts_fault(prompts, info)
        ids = [int(prompt["caption_id"]) for prompt in prompts] if not fault else []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault, ids = f"is damaged: not a list of prompts ({error})", []
    return ids, [Finding(path="prompts.json", what=fault, part="prompts")] if fault else []


def _prompts_fault(prompts: list[dict[str, Any]], info: RunInfo) -> str:
    """Return where the prompts contradict each other or the caption file whose digest the run has."""
    names = {field.name for field in dataclasses.fields(Prompt)}
    ids = [prompt["caption_id"] for prompt in prompts]
    if not all(prompt.keys() == names for prompt in prompts):
        return "is damaged: a prompt has other fields"
    if len(set(ids)) < len(ids):
        return "is damaged: a caption id is there twice"
    config = info.config["prompts"]
    if config["n"] != AUTO and config["n"] != len(ids):
        return f"is damaged: has {len(ids)} captions, the run {config['n']}"
    captions = info.identity_fields.get("data.captions_sha256")
    if captions and ids != sorted(ids, key=lambda one: rank(captions, config["seed"], one)):
        return "is damaged: its captions are not in the order of their draw"
    return ""


def check_reference(
    store: RunFolder, info: RunInfo, known: Mapping[str, Any], captions: int, *, begun: bool
) -> list[Finding]:
    """Return what is wrong with the features of the real images and of the captions' texts.

    Args:
        store: the run.
        info: its record.
        known: its record of digests.
        captions: how many there are; 0 where that is unknown.
        begun: whether a shard is there, before which the reference is written.
    """
    recorded = known.get("files", {}).get("reference.npz")
    file = store.path / "reference.npz"
    if not file.exists() and not begun:
        return [_unfinished("reference.npz", "not written yet", "reference")]
    raw, fault = read_checked(file, recorded)
    try:
        fault = fault or _reference_fault(arrays_of(raw), info, captions)
    except Exception as error:  # damaged archives raise what they like
        fault = f"is damaged: {error}"
    return [Finding(path="reference.npz", what=fault, part="reference")] if fault else []


def _reference_fault(arrays: Mapping[str, Any], info: RunInfo, captions: int) -> str:
    there = {evaluate.FORMER_NAMES.get(name, name): array for name, array in arrays.items()}
    lengths = {"reference": info.reference_n, "texts": captions}
    for name in evaluate.checkpoint_names(info):
        for metric in evaluate.planned_metrics(info, name):
            key = f"{metric.against}.{metric.extractor}"
            if metric.against is None:
                continue
            if key not in there:
                return f"is damaged: has no {key}"
            array, length = there[key], lengths[metric.against]
            if array.ndim != 2 or (length and len(array) != length):
                return f"is damaged: {key} has shape {list(array.shape)}, not {length or 'n'} rows"
            if not np.isfinite(array).all():
                return f"is damaged: {key} is not finite"
    return ""


def check_sessions(store: RunFolder) -> Iterator[Finding]:
    """Yield what is wrong with the records of what processes spent."""
    for file in sorted(store.path.glob("sessions/*.json")):
        raw, fault = read_checked(file)
        try:
            if not fault and unseal(raw).keys() - LATER_KEYS != SESSION_KEYS:
                fault = "is damaged: it has other fields"
        except ValueError as error:
            fault = f"is damaged: {error}"
        if fault:
            path = file.relative_to(store.path).as_posix()
            yield Finding(path=path, what=fault, part="session")


def arrays_of(raw: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an `.npz` file; a damaged one raises what it likes."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        return dict(archive)


def _unfinished(path: str, what: str, part: Any) -> Finding:
    return Finding(path=path, what=what, part=part, state="unfinished")
