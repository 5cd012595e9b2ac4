"""Protocol presets beside the protocol of a run: what each chooses, and what a run's images can say about it.

A run's PNGs were drawn, quantised and resized as its own protocol says. What another protocol would have
done before that point cannot be found out from them; `not_varied` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Any

from sd2eval import plugins
from sd2eval.config import ExtractorConfig, ProtocolConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors import published_weights
from sd2eval.metrics import METRICS, Metric
from sd2eval.records import RunInfo
from sd2eval.weights.inventory import holding, note_digest, noted_digest
from sd2eval.weights.published import Published, file_digest, published

CONF = "sd2eval.conf"
ROLE = "distance"
"""The network whose metrics are compared."""
OF_IMAGES = ("resolution", "resize", "fit", "quantize", "reference_jpeg", "sample_at")
OF_NETWORK = ("kind", "model", "pretrained", "preprocess", "dtype")
FORMER = {"fit": "crop", "reference_jpeg": None, "sample_at": "checkpoint", "preprocess": None}
"""What runs did that were made before these choices had names."""
ANY_SIZE = ("checkpoint=512-base-ema", "checkpoint.resolution=4096")
"""A checkpoint that no protocol is too large for: presets are composed without the run's own."""


@dataclass(frozen=True)
class Preset:
    """A protocol under which a run is scored."""

    name: str
    protocol: ProtocolConfig
    own: bool = False
    """Whether it is the run's."""


def preset_names() -> list[str]:
    """Return the names of all protocols, the package's own and those of plug-ins.

    Raises:
        InputError: a plug-in cannot be imported.
    """
    folders = [files(plugins.load(package)) / "protocol" for package in (CONF, *plugins.conf_packages())]
    names = {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()}
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def preset(name: str, overrides: Sequence[str] = ()) -> Preset:
    """Return a protocol as it composes, with further settings such as `protocol.resolution=256`.

    Raises:
        InputError: it does not compose, or a setting is wrong.
    """
    config, _ = from_overrides(f"protocol={name}", *ANY_SIZE, *overrides)
    return Preset(name, config.protocol)


def own_preset(info: RunInfo) -> Preset:
    """Return the protocol that a run was made with."""
    record = FORMER | info.config["protocol"]
    network = FORMER | record[ROLE]
    distance = ExtractorConfig(**{field.name: network.get(field.name) for field in fields(ExtractorConfig)})
    known = {field.name: record.get(field.name) for field in fields(ProtocolConfig)}
    protocol = ProtocolConfig(**known | {ROLE: distance})
    return Preset(protocol.name, protocol, own=True)


def choices(protocol: ProtocolConfig) -> dict[str, Any]:
    """Return what moves the distance under a protocol, by key; weights are in it by name only."""
    network = {key: getattr(protocol.distance, key) for key in OF_NETWORK}
    return {key: getattr(protocol, key) for key in OF_IMAGES} | network


def differs(preset: Preset, own: Preset) -> list[str]:
    """Return what a preset chooses otherwise than the run did, as `key=value`."""
    there = choices(own.protocol)
    return [
        f"{key}={'null' if value is None else value}"
        for key, value in choices(preset.protocol).items()
        if value != there[key]
    ]


def distance_metric(protocol: ProtocolConfig) -> Metric | None:
    """Return the distance that a protocol measures by its network, or None."""
    distances = [metric for metric in METRICS.values() if metric.kind == ROLE and metric.extractor == ROLE]
    named = [metric for metric in distances if metric.name in protocol.metrics]
    meant = [metric for metric in distances if protocol.distance.kind in metric.needs]
    return next(iter([*named, *meant]), None)


def comparable_metrics() -> list[str]:
    """Return the metrics that compare features of a protocol's network with the real images'."""
    return [
        metric.name
        for metric in METRICS.values()
        if metric.extractor == ROLE and metric.against == "reference" and metric.output == "features"
    ]


def png_side(own: Preset, definition: Mapping[str, Any]) -> int:
    """Return the pixels a side of a checkpoint's PNGs."""
    return int(definition["resolution"]) if own.protocol.fit == "none" else own.protocol.resolution


def other_network(preset: Preset, metric: Metric) -> str | None:
    """Return why a metric's name does not stand for a preset's network, or None where it does."""
    kind = preset.protocol.distance.kind
    if not metric.needs or kind in metric.needs:
        return None
    return f"{metric.name} stands for {' or '.join(metric.needs)}, its network is {kind}"


def why_not(preset: Preset, own: Preset, definitions: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return why a preset cannot be computed on a run, or None where nothing is in the way.

    Args:
        preset: the protocol.
        own: the run's.
        definitions: the run's checkpoints by name.
    """
    wanted = preset.protocol.resolution
    for name, definition in definitions.items():
        side = png_side(own, definition)
        if preset.protocol.fit != "none" and side < wanted:
            return f"it scores {wanted}-pixel images, the PNGs of {name} have {side}"
    return missing_weights(preset.protocol.distance)


def missing_weights(config: ExtractorConfig) -> str | None:
    """Return what to do where published weights are not here, or are others; downloads nothing."""
    try:
        names = published_weights(config)
    except InputError as error:
        return str(error)
    entries = [published()[name] for name in names if name in published()]
    return next(filter(None, map(_missing, entries)), None)


def _missing(entry: Published) -> str | None:
    held = holding(entry)
    if held.path is None:
        return (
            f"its weights are not on this machine: `python -m sd2eval models fetch {entry.name}`, "
            "or protocol.distance.source=FILE"
        )
    digest = noted_digest(held.path) or file_digest(held.path)
    note_digest(held.path, digest)
    if held.expected not in (None, digest):
        return f"{held.path} holds other weights: see `python -m sd2eval models verify {entry.name}`"
    return None


def not_varied(
    preset: Preset, own: Preset, definitions: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return what of a preset was decided before the PNGs were written: the checkpoints, by key."""
    found: dict[str, list[str]] = {}
    for name, definition in definitions.items():
        for key in _settled(preset.protocol, own.protocol, int(definition["resolution"])):
            found.setdefault(key, []).append(name)
    return found


def _settled(preset: ProtocolConfig, own: ProtocolConfig, drawn: int) -> list[str]:
    """Return the keys that a preset chooses otherwise, too late for images drawn at `drawn` pixels."""
    keys = ["quantize"] if preset.quantize != own.quantize else []
    at_other_size = preset.sample_at == "protocol" and preset.resolution != drawn
    if at_other_size or (own.sample_at, preset.sample_at) == ("protocol", "checkpoint"):
        keys.append("sample_at")
    if own.fit == "none" or drawn == own.resolution:
        return keys
    keys += [key for key in ("resize", "resolution") if getattr(preset, key) != getattr(own, key)]
    return keys + ["fit"] * (preset.fit == "none")


def with_source(preset: Preset, source: str | None) -> Preset:
    """Return a preset whose network's weights lie elsewhere; None leaves it."""
    if source is None:
        return preset
    distance = replace(preset.protocol.distance, source=source)
    return replace(preset, protocol=replace(preset.protocol, distance=distance))


def named(wanted: Sequence[str], available: Sequence[str], what: str) -> list[str]:
    """Return what was asked for, or all where nothing was.

    Raises:
        InputError: something that there is not.
    """
    from sd2eval.words import one_of

    for name in wanted:
        one_of(name, available, what)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{what}s=[{','.join(wanted)}]: each {what} once")
    return [name for name in available if not wanted or name in wanted]
