"""The schema of every key a user can set, and the rules that need more than a type.

Values live in `conf/*.yaml`, types and rules here. Each leaf is declared *identity* (it changes pixels or
scores and is hashed) or *runtime* (it never does); a test fails until a new field is declared one or the other.
Only this module and `runners/` know Hydra; everything else receives these dataclasses.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from sd2eval.errors import InputError

CONFIG_MODULE = "sd2eval.conf"


def _identity() -> Any:
    """Declare a field that changes pixels or scores."""
    return dataclasses.field(default=MISSING, metadata={"identity": True})


def _runtime() -> Any:
    """Declare a field that never changes a number."""
    return dataclasses.field(default=MISSING, metadata={"identity": False})


@dataclass(kw_only=True)
class PromptsConfig:
    """Which captions."""

    n: int = _identity()
    seed: int = _identity()


@dataclass(kw_only=True)
class SamplerConfig:
    """How latents are drawn (DDIM, Song et al. 2021)."""

    steps: int = _identity()
    eta: float = _identity()


@dataclass(kw_only=True)
class DataConfig:
    """A data set in COCO layout."""

    name: str = _identity()
    root: str | None = _runtime()  # the captions' and the reference's digests are the identity
    captions: str = _runtime()
    images: str = _runtime()
    allow_missing: bool = _runtime()


@dataclass(kw_only=True)
class ExtractorConfig:
    """A network that turns images (and texts) into features."""

    name: str = _identity()
    kind: str = _identity()
    model: str | None = _identity()
    pretrained: str | None = _identity()
    source: str | None = _runtime()  # its digest is the identity
    batch_size: int = _runtime()


@dataclass(kw_only=True)
class ProtocolConfig:
    """Every choice that moves a number between the image and the score."""

    name: str = _identity()
    resolution: int = _identity()
    resize: str = _identity()
    fit: str = _identity()
    quantize: str = _identity()
    distance: ExtractorConfig = _identity()
    score: ExtractorConfig = _identity()
    metrics: list[str] = _identity()


@dataclass(kw_only=True)
class CheckpointConfig:
    """Weights and how to sample them."""

    name: str = _identity()
    conditioning: str = _identity()
    prediction_type: str = _identity()
    resolution: int = _identity()
    beta_start: float = _identity()
    beta_end: float = _identity()
    text: str = _identity()
    noise_level: int | None = _identity()
    architecture: str | None = _runtime()  # bundled configs, where the source is not a folder
    source: str = _runtime()  # its digest is the identity
    revision: str | None = _runtime()
    components: dict[str, str] = _runtime()


@dataclass(kw_only=True)
class EnergyConfig:
    """What the kg CO2 assume."""

    country: str = _runtime()


@dataclass(kw_only=True)
class SweepConfig:
    """Everything `python -m sd2eval sweep` can be told."""

    checkpoints: list[str] = _identity()
    checkpoint: CheckpointConfig | None = dataclasses.field(default=None, metadata={"identity": True})
    guidance_scales: list[float] = _identity()
    prompts: PromptsConfig = _identity()
    seed: int = _identity()
    sampler: SamplerConfig = _identity()
    data: DataConfig = _identity()
    protocol: ProtocolConfig = _identity()
    dtype: str = _identity()
    device: str = _runtime()
    batch_size: int | None = _runtime()
    shard_size: int = _runtime()
    workers: int | None = _runtime()
    images: str = _runtime()
    out: str | None = _runtime()
    dry_run: bool = _runtime()
    progress: bool = _runtime()
    energy: EnergyConfig = _runtime()


# The values a string key may take; the error message prints them.
CHOICES = {
    "device": "auto, cpu, cuda, cuda:N or mps",
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "images": ("all", "grid", "none"),
    "protocol.resize": ("bicubic", "lanczos"),
    "protocol.fit": ("crop", "squash"),
    "protocol.quantize": ("round", "truncate"),
    "checkpoint.conditioning": ("text", "depth", "inpainting", "upscaling"),
    "checkpoint.prediction_type": ("epsilon", "v_prediction"),
    "checkpoint.text": ("open_clip", "clip"),
}


def register() -> None:
    """Tell Hydra the schema, so that it refuses misspelt keys and wrong types by name."""
    store = ConfigStore.instance()
    store.store(name="sweep_schema", node=SweepConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="protocol", name="schema", node=ProtocolConfig)
    store.store(group="extractor", name="schema", node=ExtractorConfig)
    store.store(group="checkpoint", name="schema", node=CheckpointConfig)


def typed(config: DictConfig) -> SweepConfig:
    """Return the composed config as dataclasses, checked.

    Raises:
        InputError: a value is missing or outside what is allowed; the message names the key.
    """
    _refuse_added(config)
    try:
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise InputError(_one_line(error)) from error
    assert isinstance(result, SweepConfig)
    _check(result)
    return result


def from_overrides(*overrides: str, config_name: str = "sweep") -> tuple[SweepConfig, list[CheckpointConfig]]:
    """Compose the config as the command line would, for use from Python.

    Args:
        overrides: Hydra overrides such as `"prompts.n=8"`.
        config_name: top-level file in `conf/`.

    Returns:
        The config and the definitions of its checkpoints.
    """
    register()
    with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
        config = typed(compose(config_name=config_name, overrides=list(overrides)))
        return config, checkpoint_definitions(config)


def checkpoint_definitions(config: SweepConfig) -> list[CheckpointConfig]:
    """Return the definitions behind `checkpoints=[...]`, or the one given as `checkpoint=NAME`.

    Needs an initialised Hydra, whose search path (`--config-dir` included) holds the `checkpoint/` group.
    """
    if config.checkpoint is not None:
        definitions = [config.checkpoint]
    else:
        definitions = [_checkpoint_definition(name) for name in config.checkpoints]
    for definition in definitions:
        _check_checkpoint(definition, config.protocol)
    return definitions


def _checkpoint_definition(name: str) -> CheckpointConfig:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    available = hydra.config_loader.get_group_options("checkpoint")
    if name not in available or name == "schema":
        names = ", ".join(option for option in available if option != "schema")
        raise InputError(f"checkpoints: '{name}' is unknown; allowed: {names}")
    loaded = hydra.config_loader.load_configuration(
        f"checkpoint/{name}", overrides=[], run_mode=RunMode.RUN, validate_sweep_overrides=False
    )
    result = OmegaConf.to_object(loaded.checkpoint)
    assert isinstance(result, CheckpointConfig)
    return result


def _check(config: SweepConfig) -> None:
    """Check what a type cannot say; the first fault is reported."""
    for key, value, problem in _faults(config):
        raise InputError(f"{key}={value}: {problem}")


def _faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    scales = config.guidance_scales
    if config.checkpoint is None and not config.checkpoints:
        yield "checkpoints", "[]", "name at least one checkpoint"
    if len(set(config.checkpoints)) < len(config.checkpoints):
        yield "checkpoints", config.checkpoints, "each checkpoint once"
    if not scales:
        yield "guidance_scales", "[]", "name at least one scale, such as [3.0]"
    for scale in scales:
        if not math.isfinite(scale) or scale < 0:
            yield "guidance_scales", scale, "a guidance scale is a finite number of at least 0"
    if len(set(scales)) < len(scales):
        yield "guidance_scales", scales, "each scale once"
    yield from _number_faults(config)
    for key, allowed in CHOICES.items():
        value = _get(config, key)
        if isinstance(allowed, tuple) and value is not None and value not in allowed:
            yield key, value, f"allowed: {', '.join(allowed)}"
    if config.device not in ("auto", "cpu", "cuda", "mps") and not config.device.startswith("cuda:"):
        yield "device", config.device, f"allowed: {CHOICES['device']}"


def _number_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    if config.prompts.n < 2:
        yield "prompts.n", config.prompts.n, "at least 2 prompts are needed for a standard error"
    if not 1 <= config.sampler.steps <= 1000:
        yield "sampler.steps", config.sampler.steps, "allowed: 1 to 1000 (the schedule has 1000 timesteps)"
    if not 0 <= config.sampler.eta <= 1:
        yield "sampler.eta", config.sampler.eta, "allowed: 0 (DDIM) to 1 (DDPM)"
    for key in ("seed", "prompts.seed"):
        if not 0 <= _get(config, key) < 2**63:
            yield key, _get(config, key), "allowed: 0 to 2**63 - 1"
    for key in ("batch_size", "shard_size", "workers", "protocol.resolution"):
        value = _get(config, key)
        if value is not None and value < 1:
            yield key, value, "at least 1"
    if not config.protocol.metrics:
        yield "protocol.metrics", "[]", "name at least one metric"


def _check_checkpoint(definition: CheckpointConfig, protocol: ProtocolConfig) -> None:
    """Refuse a checkpoint whose images the protocol was not made for (mini against real ones)."""
    for key in ("conditioning", "prediction_type", "text"):
        allowed = CHOICES[f"checkpoint.{key}"]
        if getattr(definition, key) not in allowed:
            raise InputError(f"checkpoint.{key}={getattr(definition, key)}: allowed: {', '.join(allowed)}")
    if definition.resolution < protocol.resolution:
        raise InputError(
            f"checkpoints: '{definition.name}' draws {definition.resolution}-pixel images, too small for "
            f"protocol={protocol.name} ({protocol.resolution} pixels); choose a matching protocol or experiment"
        )


def _get(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if config is None:
            return None
        config = getattr(config, part)
    return config


def leaves(config: Any, prefix: str = "", *, identity: bool | None = None) -> Iterator[tuple[str, Any, bool]]:
    """Yield `(dotted key, value, is identity)` of every leaf of a config dataclass.

    A group inherits nothing: each leaf carries its own declaration, except that everything below a runtime
    group is runtime.
    """
    for field in dataclasses.fields(config):
        declared = field.metadata["identity"] and identity is not False
        value = getattr(config, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.", identity=declared)
        else:
            yield key, value, declared


def identity_fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves that change pixels or scores, by dotted key."""
    return {key: value for key, value, declared in leaves(config, prefix) if declared}


def digest(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of fields in canonical JSON (sorted keys, no white space)."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def explain(error: Exception, words: Sequence[str]) -> str | None:
    """Return one line for an error of Hydra's about what the user typed, or None if it is none.

    Args:
        error: what Hydra raised.
        words: the overrides on the command line.
    """
    if isinstance(error, AssertionError) and any(word.startswith("checkpoint.") for word in words):
        return "checkpoint.*: say which checkpoint to change: checkpoint=NAME checkpoint.KEY=VALUE"
    if isinstance(error, MissingConfigException):
        return _unknown_option(str(error))
    if isinstance(error, OverrideParseException):
        return f"cannot read the override '{error.override}': write KEY=VALUE, lists as KEY=[A,B], without spaces"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _key_problem(cause)
    return _one_line(error) if isinstance(error, HydraException) else None


def _unknown_option(message: str) -> str:
    found = re.search(r"Could not find '([^']+)/([^'/]+)'", message)
    if found is None:
        return " ".join(message.split())
    group, name = found.groups()
    options = re.findall(r"^\t(\S+)$", message.partition("Config search path")[0], re.MULTILINE)
    return f"{group}={name}: unknown; allowed: {', '.join(option for option in options if option != 'schema')}"


def _key_problem(cause: OmegaConfBaseException) -> str:
    first = str(cause).splitlines()[0]
    key = cause.full_key or "config"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        keys = [name for name, _ in _schema_keys(SweepConfig)]
        near = difflib.get_close_matches(key, keys, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"keys: {', '.join(k for k in keys if '.' not in k)}"
        return f"{key}: there is no such key; {hint}"
    if "not a ListConfig" in first:
        return f"{key}: a list is needed, such as {key}=[...]"
    if "is not Optional" in first:
        return f"{key}: null is not allowed"
    return f"{key}: {first[:1].lower()}{first[1:]}"


def _schema_keys(schema: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield `(dotted key, is identity)` of every leaf that the schema declares."""
    hints = get_type_hints(schema)
    for declared in dataclasses.fields(schema):
        key = f"{prefix}{declared.name}"
        nested = [kind for kind in (hints[declared.name], *get_args(hints[declared.name])) if dataclasses.is_dataclass(kind)]
        yield key, bool(declared.metadata.get("identity"))
        if nested:
            yield from _schema_keys(nested[0], f"{key}.")


def _refuse_added(node: Any, prefix: str = "") -> None:
    """Refuse keys that were added with `+`, which Hydra lets pass beside the schema."""
    known = {key for key, _ in _schema_keys(SweepConfig)}
    for key in node:
        name = f"{prefix}{key}"
        if name not in known and not prefix.endswith("components."):
            raise InputError(f"{name}: there is no such key; a leading + does not help")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _refuse_added(child, f"{name}.")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
