"""The weights of a sweep's checkpoints and of its metrics' networks: here, right, or to be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

from sd2eval.checkpoints import sources
from sd2eval.checkpoints.identity import published_name
from sd2eval.checkpoints.single_file import check_contents
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import CheckpointConfig, ExtractorConfig, ProtocolConfig
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from sd2eval.errors import InputError
from sd2eval.extractors import published_weights
from sd2eval.networks import own_metrics
from sd2eval.transfer.meter import format_bytes
from sd2eval.weights import hub
from sd2eval.weights.inventory import MISSING, UNVERIFIED, VERIFIED, WRONG, Holding, holding, note_digest
from sd2eval.weights.published import TABLE, Published, file_digest, published

HASHED_AT_ONCE = 300e6
"""Bytes of a file that is hashed here; a larger one is left to `models verify`, and to the sweep."""
OFFLINE = "HF_HUB_OFFLINE is set"


class Wanted:
    """The weights of a sweep that are not here, filled while they are looked at."""

    def __init__(self, table: Path = TABLE) -> None:
        self.table = table
        self.missing: list[Published] = []
        """To be fetched."""
        self.elsewhere: list[str] = []
        """Hub ids of the user's own that are not in the cache."""
        self.entries: list[Published] = []
        """All of the table's that the sweep uses."""
        self.checkpoint_bytes: list[int | None] = []
        """About as many as each checkpoint takes in memory; None where that is not known."""
        self.network_bytes: list[int | None] = []


def checkpoints(definitions: list[CheckpointConfig], wanted: Wanted) -> Iterator[Finding]:
    """Say of each checkpoint where its weights are."""
    seen = set()
    for definition in definitions:
        key = (published_name(definition), definition.source, definition.file)
        if key not in seen:
            seen.add(key)
            yield _checkpoint(definition, wanted)


def _checkpoint(definition: CheckpointConfig, wanted: Wanted) -> Finding:
    name = published_name(definition)
    entry = published(wanted.table).get(name)
    if sources.local_path(definition.source) is not None:
        return _local(definition, name, wanted)
    wanted.checkpoint_bytes.append(entry.about_bytes if entry else None)
    if entry and definition.source in (entry.repository, entry.former_repository):
        return held(entry, wanted)
    return _elsewhere(definition, name, wanted)


def _elsewhere(definition: CheckpointConfig, name: str, wanted: Wanted) -> Finding:
    """Look for what is no file here in the hub's cache."""
    source = definition.source
    is_path = source.endswith(sources.FILE_SUFFIXES) or source.startswith((".", "/", "~"))
    try:
        cached = None if is_path else hub.in_cache(source, definition.file or "unet/config.json")
    except HFValidationError:
        is_path = True
    if is_path:
        advice = "name a file or folder that is here, or a hub id: checkpoint.source=X"
        return Finding("weights", PROBLEM, f"{name}: no such file or folder: {source}", advice, name)
    if cached:
        return Finding("weights", OK, f"{name}: in the hub's cache, {source}", about=name)
    wanted.elsewhere.append(source)
    return _absent(name, f"{source} is not in the hub's cache", "the sweep fetches it")


def _local(definition: CheckpointConfig, name: str, wanted: Wanted) -> Finding:
    """Look at files of the user's own, and at the headers in them; nothing is hashed."""
    try:
        found = sources.resolve(definition)
        if found.file:
            check_contents(WeightsFile(found.file), definition)
    except InputError as error:
        return Finding("weights", PROBLEM, f"{name}: {error}", "see docs/checkpoints.md", name)
    inside = [file for folder in found.folders.values() for file in folder.glob("*.safetensors")]
    parts = [*([found.file] if found.file else []), *inside]
    wanted.checkpoint_bytes.append(sum(file.stat().st_size for file in parts))
    return Finding("weights", OK, f"{name}: {_shown(definition.source)}", about=name)


def _shown(source: str) -> str:
    if source.startswith(sources.PACKAGE_PREFIX):
        return "comes with the package"
    return f"{source} is here; the sweep hashes it"


def networks(
    protocol: ProtocolConfig, definitions: list[CheckpointConfig], wanted: Wanted
) -> Iterator[Finding]:
    """Say of each network of the metrics where its weights are."""
    metrics = [metric for definition in definitions for metric in own_metrics(protocol, definition)]
    slots = dict.fromkeys(metric.extractor for metric in metrics if metric.extractor)
    seen = set()
    for extractor in (protocol.extractor(slot) for slot in slots):
        try:
            names = published_weights(extractor)
        except InputError as error:
            yield Finding("networks", PROBLEM, str(error), "see docs/models.md", extractor.name)
            continue
        if not names:
            yield _own_network(extractor)
        for name in names:
            if name not in seen:
                seen.add(name)
                entry = published(wanted.table)[name]
                wanted.network_bytes.append(entry.about_bytes)
                yield held(entry, wanted, check="networks")


def _own_network(extractor: ExtractorConfig) -> Finding:
    name, source = extractor.name, extractor.source
    if source and sources.local_path(source) is None:
        advice = f"correct the extractor's source=, or set it to null: `{name}` is then fetched"
        return Finding("networks", PROBLEM, f"{name}: no such file or folder: {source}", advice, name)
    where = _shown(source) if source else "nothing to fetch"
    return Finding("networks", OK, f"{name}: {where}", about=name)


def held(entry: Published, wanted: Wanted, check: str = "weights") -> Finding:
    """Return what this machine has of a published file, hashing it if it is small."""
    wanted.entries.append(entry)
    found = holding(entry)
    if found.state == UNVERIFIED and found.path and found.path.stat().st_size <= HASHED_AT_ONCE:
        note_digest(found.path, file_digest(found.path))
        found = holding(entry)
    if found.state == MISSING:
        wanted.missing.append(entry)
        size = f", about {format_bytes(entry.about_bytes)}" if entry.about_bytes else ""
        command = f"python -m sd2eval models fetch {entry.name}"
        return _absent(entry.name, f"not on this machine{size}", command, check)
    return _present(entry, found, check)


def _present(entry: Published, found: Holding, check: str) -> Finding:
    name = entry.name
    if found.state == WRONG:
        advice = f"move the file away and fetch it again: python -m sd2eval models fetch {name}"
        if found.first_use:
            advice = f"move it away, or accept it: python -m sd2eval models forget {name}"
        return Finding(check, PROBLEM, f"{name}: {found.path} has another SHA-256 than it must", advice, name)
    companions = [c for c in entry.companions if not hub.in_cache(entry.repository or "", c)]
    if companions:
        advice = f"python -m sd2eval models fetch {name}"
        level = PROBLEM if constants.is_offline_mode() else WARNING
        return Finding(check, level, f"{name}: {companions[0]} beside it is missing", advice, name)
    if found.state == VERIFIED:
        return Finding(check, OK, f"{name}: here and verified", about=name)
    if found.expected is None:
        found_text = f"{name}: here; no digest is published, the first use records one"
        return Finding(check, OK, found_text, about=name)
    advice = f"python -m sd2eval models verify {name}"
    return Finding(check, WARNING, f"{name}: here, not hashed since it last changed", advice, name)


def _absent(name: str, found: str, command: str, check: str = "weights") -> Finding:
    if constants.is_offline_mode():
        advice = f"unset HF_HUB_OFFLINE, then: {command}"
        return Finding(check, PROBLEM, f"{name}: {found}, and {OFFLINE}", advice, name)
    return Finding(check, WARNING, f"{name}: {found}", command, name)
