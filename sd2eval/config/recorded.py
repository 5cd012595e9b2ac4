"""The settings of a run, from its record: what `asdict` made of them, back as dataclasses. No Hydra."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sd2eval.config.schema import (
    CheckpointConfig,
    DataConfig,
    EnergyConfig,
    EngineConfig,
    ExtractorConfig,
    PromptsConfig,
    ProtocolConfig,
    SamplerConfig,
    SweepConfig,
)
from sd2eval.errors import InputError

GROUPS: dict[str, type[Any]] = {
    "prompts": PromptsConfig,
    "sampler": SamplerConfig,
    "data": DataConfig,
    "protocol": ProtocolConfig,
    "energy": EnergyConfig,
    "engine": EngineConfig,
    "checkpoint": CheckpointConfig,
    **dict.fromkeys(("distance", "score", "perceptual"), ExtractorConfig),
}
"""Fields that are dataclasses themselves."""

HERE = EngineConfig(name="local", workers=1, tries=3)
"""The engine that needs nothing."""


def recorded(config: Mapping[str, Any]) -> tuple[SweepConfig, list[CheckpointConfig]]:
    """Return what `sweep` takes, from the config of a `run.json`, for this process: any engine goes on.

    Raises:
        InputError: another version of sd2eval wrote it, with other keys.
    """
    own = dict(config) | {"engine": dataclasses.asdict(HERE)}
    try:
        definitions = [CheckpointConfig(**one) for one in own.pop("checkpoint_definitions").values()]
        return _built(SweepConfig, own), definitions
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"run.json: its settings are another version's ({error}); run the sweep's own command again"
        ) from error


def _built(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Return a dataclass; a field that is not there, or one too many, is a TypeError."""
    needed = {field.name for field in dataclasses.fields(kind)}
    if needed != values.keys():
        raise TypeError(f"keys: {', '.join(sorted(needed ^ values.keys()))}")
    found = {}
    for name, value in values.items():
        if name == "extractors":
            value = {slot: _built(ExtractorConfig, one) for slot, one in value.items()}
        found[name] = _built(GROUPS[name], value) if name in GROUPS and value is not None else value
    return kind(**found)
