"""Checking the values of probes' settings: their types are those of the defaults, and names must exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, ROLES

Fault = tuple[str, Any, str]
"""Dotted key, its value, what is allowed."""
OF_NULL: dict[str, Any] = {"n": 192, "prompts_file": "prompts.txt"}
"""A value for each key whose default is null, which alone says no type; null stays allowed there."""
LEAST = {"n": 2, "captions": 2, "clusters": 2, "identity": 2, "marked": 2, "smallest": 2}
"""Smallest value of counts below which nothing can be estimated; of any other count it is 1."""
NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "guidance_scale": (lambda value: value >= 0, "a finite number of at least 0"),
    "limits": (lambda value: 0 < value < 1, "numbers between 0 and 1"),
    **dict.fromkeys(
        ("least", "least_counted", "limit", "most_errors"),
        (lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    ),
}
"""What a number may be, by key; any other one has to be finite."""
CHOICES = {"level": ("supercategory", "category")}
OPEN = ("parts", "names")
"""Keys whose own keys are the user's."""
NAMED = ("components", "extractors")
"""Keys of any probe, whose own keys are roles that the user may add."""


def check_settings(composed: DictConfig) -> None:
    """Check what probes are told against their defaults; needs an initialised Hydra.

    Raises:
        InputError: names the first wrong key, its value and what is allowed.
    """
    given, defaults = _plain(composed), _plain(_defaults(str(composed.family)))
    for probe in given.keys() - defaults.keys():
        raise InputError(f"settings.{probe}: there is no such key; allowed: {', '.join(defaults)}")
    for probe, default in defaults.items():
        for key, value, problem in _faults(f"settings.{probe}", "", given.get(probe), default):
            raise InputError(f"{key}={_told(value)}: {problem}")
        for key, value, problem in _unknown_names(f"settings.{probe}", given[probe]):
            raise InputError(f"{key}={_told(value)}: {problem}")


def _defaults(family: str) -> DictConfig:
    """Return the config of a family with nothing changed."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.config_loader.load_configuration(
        "probe", overrides=[f"family={family}"], run_mode=RunMode.RUN, validate_sweep_overrides=False
    )


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Return the settings of all probes; `settings` itself is a group by the schema."""
    found = OmegaConf.to_container(composed.settings, resolve=True)
    assert isinstance(found, dict)
    return {str(probe): own for probe, own in found.items()}


def _faults(name: str, key: str, value: Any, default: Any) -> Iterator[Fault]:
    """Yield what is wrong with a value, and in it.

    Args:
        name: dotted name of what is looked at.
        key: of the setting that it belongs to, by which `LEAST`, `NUMBERS` and `CHOICES` know it.
        value: what was given.
        default: what the file in conf/probe_settings/ has.
    """
    if default is None:
        if value is None or key not in OF_NULL:
            return
        default = OF_NULL[key]
    if isinstance(default, dict):
        yield from _group_faults(name, key, value, default)
    elif isinstance(default, list):
        if not isinstance(value, list) or not value:
            yield name, value, "a list is needed, such as " + _told(default)
            return
        for one in value:
            yield from ((name, value, problem) for *_, problem in _faults(name, key, one, default[0]))
        if key == "limits" and len({f"{one:g}" for one in value}) < len(value):
            yield name, value, "each limit once; their first 6 digits name the rows"
    elif problem := _problem(key, value, default):
        yield name, value, problem


def _group_faults(name: str, key: str, value: Any, default: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong in a group of keys.

    Raises:
        InputError: a key is not there any more, or there is one that nothing would read.
    """
    if not isinstance(value, dict):
        yield name, value, f"it holds keys of its own: {', '.join(default)}"
        return
    for own, usual in default.items():
        if own in value:
            yield from _faults(f"{name}.{own}", key or own, value[own], usual)
        elif key not in OPEN:
            raise InputError(f"{name}.{own}: a key cannot be removed")
    usual = next(iter(default.values()), "")
    for own in [own for own in value if own not in default]:
        if key in (*OPEN, *NAMED):
            yield from _faults(f"{name}.{own}", key, value[own], usual)
        elif key or own not in NAMED:
            raise InputError(f"{name}.{own}: there is no such key; allowed: {', '.join(default)}")


def _problem(key: str, value: Any, default: Any) -> str:
    """Return what is allowed where a value is not; empty where it is."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "allowed: true or false"
    if isinstance(default, int):
        least = LEAST.get(key, 1)
        whole = type(value) is int and value >= least
        return "" if whole else f"allowed: a whole number of at least {least}"
    if isinstance(default, float):
        fits, allowed = NUMBERS.get(key, (math.isfinite, "a finite number"))
        number = type(value) in (int, float) and math.isfinite(value) and fits(value)
        return "" if number else f"allowed: {allowed}"
    if key in CHOICES:
        return "" if value in CHOICES[key] else f"allowed: {', '.join(CHOICES[key])}"
    return "" if isinstance(value, str) and value.strip() else "a text is needed; quote what is none"


def _unknown_names(probe: str, given: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the names of metrics and networks that do not exist, or do not fit what they are for."""
    for group in NAMED:
        if not isinstance(given.get(group, {}), dict):
            yield f"{probe}.{group}", given[group], "it holds keys of its own: {ROLE: NAME}"
            return
    for role, name in given.get("metrics", {}).items():
        allowed = metrics_of(role)
        if name not in allowed:
            yield f"{probe}.metrics.{role}", name, f"allowed: {', '.join(allowed)}"
    slots = [role for role in ROLES if role != "perceptual"]  # that one has no features, only distances
    slots += [one for pair in given.get("extractors", {}).items() for one in pair]
    if "features" in given and given["features"] not in slots:
        yield f"{probe}.features", given["features"], f"allowed: {', '.join(dict.fromkeys(slots))}"


def metrics_of(role: str) -> list[str]:
    """Return the metrics that can play a role of a probe.

    A probe computes `distance`, `kernel` and `precision` from the protocol's distance network, `score` from
    its score network.
    """
    network = "score" if role == "score" else "distance"
    return [
        metric.name
        for metric in METRICS.values()
        if metric.extractor == network
        and metric.output == "features"
        and (metric.name.startswith("precision") if role == "precision" else metric.kind == role)
    ]


def _told(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_told, value))}]"
    return "null" if value is None else str(value)
