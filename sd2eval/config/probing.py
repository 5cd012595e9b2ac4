"""Composing and checking the settings of `probe`; what a sweep shares is checked by the sweep's own rules."""

from __future__ import annotations

import copy
import math
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sd2eval.config import (
    CONFIG_MODULE,
    checkpoint_definitions,
    from_group,
    group_options,
    register,
)
from sd2eval.config.mistakes import check_words, explain, one_line, refuse_added
from sd2eval.config.probe_values import check_settings
from sd2eval.config.quoting import as_typed
from sd2eval.config.rules import check
from sd2eval.config.schema import (
    CheckpointConfig,
    ProbeConfig,
    PromptsConfig,
    SweepConfig,
    leaves,
)
from sd2eval.errors import InputError

LARGEST_MINI = 128
"""Pixels of the largest image that the mini world's networks were made for."""
ROLES = ("components", "extractors")
"""Keys of a probe's settings that name files of conf/."""


def from_overrides(*overrides: str) -> tuple[ProbeConfig, list[CheckpointConfig]]:
    """Compose the config as the command line would, for use from Python.

    Raises:
        InputError: an override is wrong; the message names its key.
    """
    register()
    check_words(overrides)
    with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
        try:
            composed = compose(config_name="probe", overrides=as_typed(overrides))
        except Exception as error:
            line = explain(error, overrides)
            if line is None:
                raise
            raise InputError(line) from error
        config = typed(composed)
        return config, definitions(config)


def typed(composed: DictConfig) -> ProbeConfig:
    """Return the composed config as dataclasses, checked.

    Needs an initialised Hydra, whose search path holds the groups.

    Raises:
        InputError: a value is missing or outside what is allowed; the message names the key.
    """
    refuse_added(composed, schema=ProbeConfig)
    try:
        check_settings(composed)
        _fill(composed)
        result = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise InputError(one_line(error)) from error
    assert isinstance(result, ProbeConfig)
    for key, value, _ in leaves(result):
        if value == MISSING:
            raise InputError(f"{key}: a value is needed")
    _check(result)
    return result


def definitions(config: ProbeConfig) -> list[CheckpointConfig]:
    """Return the definitions of the checkpoints, each fit for the family.

    Raises:
        InputError: an unknown one, or one of the other family.
    """
    found = checkpoint_definitions(as_sweep(config, fits=False))
    for definition in found:
        _check_family(definition, config)
    return checkpoint_definitions(as_sweep(config))


def as_sweep(config: ProbeConfig, scale: float | None = None, *, fits: bool = True) -> SweepConfig:
    """Return the sweep that draws as a probe does: all that the two share, one scale, all images kept.

    Args:
        config: of the probes.
        scale: guidance scale; None takes the config's.
        fits: whether checkpoints must fit the protocol; False lets any pass.
    """
    protocol = copy.copy(config.protocol)
    protocol.metrics = []
    if not fits:
        protocol.resolution, protocol.sample_at = 8, "checkpoint"
    return SweepConfig(
        checkpoints=config.checkpoints,
        checkpoint=config.checkpoint,
        guidance_scales=[config.guidance_scale if scale is None else scale],
        noise_levels=[],
        prompts=PromptsConfig(n=2, seed=config.captions_seed, first=2, most=None),
        precision={},
        seed=config.seed,
        sampler=config.sampler,
        data=config.data,
        protocol=protocol,
        dtype=config.dtype,
        device=config.device,
        batch_size=config.batch_size,
        shard_size=config.shard_size,
        images="all",
        out=None,
        dry_run=False,
        progress=config.progress,
        energy=config.energy,
        engine=config.engine,
    )


def _fill(composed: DictConfig) -> None:
    """Add every component, and the extractors that settings name; what the command line says of one stays.

    Raises:
        InputError: a name has no file in conf/.
    """
    named = _named(composed)
    for role, names in named.items():
        group = role.removesuffix("s")
        have = group_options(group)
        given = composed[role]
        for name in [*names, *given]:
            if name not in have:
                where = names.get(name, f"{role}.{name}")
                raise InputError(f"{where}: there is no {group}/{name}.yaml; allowed: {', '.join(have)}")
        with open_dict(given):
            for name in have if role == "components" else {*names, *given}:
                given[name] = OmegaConf.merge(from_group(group, name), given.get(name) or {})


def _named(composed: DictConfig) -> dict[str, dict[str, str]]:
    """Return the names in settings, by role, each with the key that names it."""
    found: dict[str, dict[str, str]] = {role: {} for role in ROLES}
    for probe, settings in composed.settings.items():
        for role in ROLES:
            for key, name in (settings.get(role) or {}).items():
                found[role][str(name)] = f"settings.{probe}.{role}.{key}={name}"
    return found


def _check(config: ProbeConfig) -> None:
    scale = config.guidance_scale
    if not math.isfinite(scale) or scale < 0:
        raise InputError(f"guidance_scale={scale}: a finite number of at least 0")
    if not 0 <= config.captions_seed < 2**63:
        raise InputError(f"captions_seed={config.captions_seed}: allowed: 0 to 2**63 - 1")
    sweep = as_sweep(config)
    sweep.protocol.metrics = ["psnr"]  # any: a sweep has to measure something, a probe says itself what
    sweep.out = config.out
    check(sweep)
    for name, component in config.components.items():
        if component.batch_size < 1:
            raise InputError(f"components.{name}.batch_size={component.batch_size}: at least 1")


def _check_family(definition: CheckpointConfig, config: ProbeConfig) -> None:
    """Refuse a checkpoint of the other family, whose images no component of this one can read."""
    mini = definition.resolution <= LARGEST_MINI
    if config.family == "mini" and not mini:
        raise InputError(
            f"checkpoints: '{definition.name}' draws {definition.resolution}-pixel images, and family=mini "
            "measures with the mini world's networks; add family=published data.root=DIR"
        )
    if config.family != "mini" and mini:
        raise InputError(
            f"checkpoints: '{definition.name}' draws {definition.resolution}-pixel images of the mini world; "
            "leave out family=, or add family=mini"
        )


def settings_of(config: ProbeConfig, probe: str) -> dict[str, Any]:
    """Return a probe's settings; empty for one without files in conf/probe_settings/."""
    found = config.settings.get(probe) or {}
    assert isinstance(found, dict)
    return found
