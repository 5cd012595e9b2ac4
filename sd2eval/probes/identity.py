"""What an answer rests on: every setting, file, network and line of code that moves one of its numbers."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sd2eval
from sd2eval.checkpoints.sources import local_path
from sd2eval.config import CheckpointConfig, ComponentConfig, ExtractorConfig, digest, identity_fields
from sd2eval.metrics import ROLES
from sd2eval.probes import components
from sd2eval.probes.base import Probe, PromptSet, Unavailable

if TYPE_CHECKING:
    from sd2eval.probes.bench import Workbench

ANNOTATIONS = ("instances", "person_keypoints")
CODE = (".py", ".json", ".csv", ".safetensors")
"""What the package computes with: code, prompts and statistics, the mini networks."""
OF_A_SWEEP = ("protocol.metrics", "protocol.extractors.")
"""Beginnings of settings of a protocol that say what a sweep computes; they move no number of a probe."""


def identity(
    probe: Probe, prompts: PromptSet, bench: Workbench, definition: CheckpointConfig
) -> dict[str, Any]:
    """Return every setting and digest that moves a number of a probe, by dotted key.

    Raises:
        Unavailable: a local copy of a network or component is not on this machine.
    """
    config, shelf = bench.shelf.config, bench.shelf
    fields = identity_fields(definition, "checkpoint.") | _protocol(bench) | _extractors(bench)
    if probe.draws:
        fields |= {"guidance_scale": bench.guidance_scale, "seed": config.seed}
        fields |= identity_fields(config.sampler, "sampler.")
    for name in _named(bench, "components"):
        fields |= _component(bench, config.components[name])
    return fields | {
        "probe": probe.name,
        "family": config.family,
        "settings": dict(bench.settings),
        "captions_seed": config.captions_seed,
        "dtype": shelf.studio.dtype,
        "digests.weights": shelf.studio.weights[definition.name].digest,
        "digests.prompts": prompts.digest,
        "digests.captions": shelf.dataset.captions_digest,
        "digests.images": shelf.files_digest,
        **{f"digests.{name}": _annotations_digest(bench, name) for name in ANNOTATIONS},
        "digests.code": code_digest(),
    }


def protocol_name(bench: Workbench) -> str:
    """Return the protocol's name with a digest of its choices, its networks and the data they are used on."""
    fields = _protocol(bench) | {
        "captions": bench.dataset.captions_digest,
        "images": bench.shelf.files_digest,
    }
    return f"{bench.protocol.name}@{digest(fields)[:8]}"


def of_probes(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those that only say what a sweep computes."""
    return {key: value for key, value in fields.items() if not key.startswith(OF_A_SWEEP)}


@cache
def code_digest() -> str:
    """Return the SHA-256 over the package's code and data: whoever changes them measures anew."""
    total = hashlib.sha256()
    root = Path(sd2eval.__path__[0])
    for file in sorted(file for file in root.rglob("*") if file.suffix in CODE):
        total.update(f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _protocol(bench: Workbench) -> dict[str, Any]:
    """Return the protocol's settings and the digests of local copies of its networks, by dotted key.

    What has no local copy is published: its digest is pinned by its name.
    """
    fields = of_probes(identity_fields(bench.protocol, "protocol."))
    for role in ROLES:
        fields[f"protocol.{role}.source_sha256"] = _source(bench, "extractor", bench.protocol.extractor(role))
    return fields


def _extractors(bench: Workbench) -> dict[str, Any]:
    """Return settings and local copies of the probe's own networks, by dotted key."""
    fields: dict[str, Any] = {}
    for name in _named(bench, "extractors"):
        extractor = bench.shelf.config.extractors[name]
        fields |= identity_fields(extractor, f"extractors.{name}.")
        fields[f"extractors.{name}.source_sha256"] = _source(bench, "extractor", extractor)
    return fields


def _component(bench: Workbench, config: ComponentConfig) -> dict[str, Any]:
    """Return a component's settings, its local copy, and the packages and programs that it measures with."""
    prefix = f"components.{config.name}."
    fields = identity_fields(config, prefix) | {f"{prefix}source_sha256": _source(bench, "component", config)}
    fields[f"{prefix}installed_sha256"] = components.identity(config)
    return fields | {f"{prefix}packages.{name}": _version(name) for name in components.packages(config)}


def _source(bench: Workbench, what: str, config: ExtractorConfig | ComponentConfig) -> str:
    """Return the digest of a local copy, without loading it; empty where none is named."""
    if config.source is None:
        return ""
    path = local_path(config.source)
    if path is None or not path.exists():
        raise Unavailable(f"{what} '{config.name}': source '{config.source}' is not on this machine")
    return bench.shelf.digest_of(path)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _annotations_digest(bench: Workbench, name: str) -> str:
    """Return the SHA-256 of an annotation file of the data set; empty where there is none."""
    try:
        return bench.shelf.digest_of(bench.annotations(name))
    except Unavailable:
        return ""


def _named(bench: Workbench, role: str) -> list[str]:
    return [str(name) for name in dict(bench.settings.get(role) or {}).values()]
