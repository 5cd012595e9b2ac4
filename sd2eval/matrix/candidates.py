"""Which protocols can be computed on a run, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sd2eval.errors import InputError
from sd2eval.matrix.presets import (
    Preset,
    choices,
    differs,
    other_network,
    preset,
    preset_names,
    why_not,
    with_source,
)
from sd2eval.metrics import Metric

SOURCE = "protocol.distance.source="
"""The one setting that holds for the run's own protocol too: where weights lie moves no number."""


@dataclass(frozen=True)
class Candidates:
    """The protocols that nothing known speaks against."""

    own: str
    """Name of the run's own protocol, whether or not it can be computed."""
    presets: list[Preset]
    """The run's own first."""
    left_out: dict[str, str] = field(default_factory=dict)
    """By protocol the reason."""


def candidates(
    names: Sequence[str],
    own: Preset,
    metric: Metric,
    definitions: Mapping[str, Mapping[str, Any]],
    overrides: Sequence[str],
) -> Candidates:
    """Return the run's own protocol and the presets that may be computed.

    A preset that chooses what the run did is the run's own. One that only has the name of the run's is called
    NAME (preset), and settings that change a preset are in its name, such as NAME (resolution=32).

    Args:
        names: of the presets.
        own: the run's protocol.
        metric: what is computed.
        definitions: the run's checkpoints by name.
        overrides: settings of the presets.
    """
    reasons: dict[str, str] = {}
    composed = _composed([*names, *({own.name} & set(preset_names()))], metric, overrides, reasons)
    source = next((word.removeprefix(SOURCE) for word in overrides if word.startswith(SOURCE)), None)
    own = with_source(own, source)
    same_name = composed.get(own.name)
    if same_name and own.name in names and choices(same_name.protocol) != choices(own.protocol):
        composed[own.name] = _beside(own, same_name)
    elif same_name:
        del composed[own.name]
    if own.name in reasons:
        reasons[_of_preset(own.name)] = reasons.pop(own.name)
    found = []
    for one in [own, *composed.values()]:
        reason = other_network(one, metric) or why_not(one, own, definitions)
        if reason is None:
            found.append(one)
        else:
            reasons[one.name] = reason
    return Candidates(own.name, found, reasons)


def _beside(own: Preset, other: Preset) -> Preset:
    """Return a preset under a name that is not the run's own."""
    return replace(other, name=_of_preset(own.name)) if other.name == own.name else other


def _of_preset(name: str) -> str:
    return f"{name} (preset)"


def _composed(
    names: Sequence[str], metric: Metric, overrides: Sequence[str], reasons: dict[str, str]
) -> dict[str, Preset]:
    """Return by the name of its file each preset; the settings are for those of the metric's network."""
    found: dict[str, Preset] = {}
    for name in dict.fromkeys(names):
        try:
            plain = preset(name)
            found[name] = plain
            if overrides and other_network(plain, metric) is None:
                changed = preset(name, overrides)
                settings = differs(changed, plain)
                found[name] = (
                    replace(changed, name=f"{name} ({', '.join(settings)})") if settings else changed
                )
        except InputError as error:
            found.pop(name, None)
            reasons[name] = str(error)
    return found
