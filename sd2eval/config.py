"""The schema of every key a user can set, and the rules that need more than a type.

Values live in `conf/*.yaml`, types and rules here. Each leaf is declared *identity* (it changes pixels or
scores and is hashed) or *runtime* (it never does); a test fails until a new field is declared one or the
other.
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
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
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
    "protocol.distance.kind": ("inception", "mini_classifier"),
    "protocol.score.kind": ("open_clip", "mini_clip"),
    "checkpoint.conditioning": ("text", "depth", "inpainting", "upscaling"),
    "checkpoint.prediction_type": ("epsilon", "v_prediction"),
    "checkpoint.text": ("open_clip", "clip"),
    "checkpoint.components": ("unet", "vae", "text_encoder", "tokenizer", "depth_estimator"),
}

# The extractor that a metric's name stands for: a published name is never put on a mini network's numbers.
METRIC_NEEDS = {
    "fid": ("protocol.distance.kind", "inception"),
    "kid": ("protocol.distance.kind", "inception"),
    "clip_score": ("protocol.score.kind", "open_clip"),
    "fd_mini": ("protocol.distance.kind", "mini_classifier"),
    "kid_mini": ("protocol.distance.kind", "mini_classifier"),
    "clip_mini": ("protocol.score.kind", "mini_clip"),
}


def register() -> None:
    """Tell Hydra the schema, so that it refuses misspelt keys and wrong types by name."""
    store = ConfigStore.instance()
    store.store(name="sweep_schema", node=SweepConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="protocol", name="schema", node=ProtocolConfig)
    store.store(group="extractor", name="schema", node=ExtractorConfig)
    store.store(group="checkpoint", name="schema", node=CheckpointConfig)
    # For the help text in conf/: ${options:checkpoint} and ${allowed:dtype}.
    OmegaConf.register_new_resolver("options", lambda group: ", ".join(_options(group)), replace=True)
    OmegaConf.register_new_resolver("allowed", _allowed, replace=True)


def _options(group: str) -> list[str]:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return [name for name in hydra.config_loader.get_group_options(group) if name != "schema"]


def _allowed(key: str) -> str:
    choices = tuple(METRIC_NEEDS) if key == "protocol.metrics" else CHOICES[key]
    return choices if isinstance(choices, str) else ", ".join(choices)


def check_words(words: Sequence[str]) -> None:
    """Refuse a command line that Hydra would answer with its usage, a traceback or silence.

    Raises:
        InputError: an unknown option, or a word that is no override.
    """
    parser: Any = get_args_parser()

    def fail(message: str) -> NoReturn:
        raise InputError(f"{message}; settings are written KEY=VALUE, and --help lists them")

    parser.error = fail
    known, unknown = parser.parse_known_args(words)
    if unknown:
        fail(f"{unknown[0]}: there is no such option")
    modes = (known.run, known.cfg, known.multirun, known.shell_completion, known.info)
    if sum(map(bool, modes)) > 1:
        fail("only one of --run, --cfg, --multirun, --shell-completion and --info can be given")
    if known.resolve and not (known.cfg or known.help):
        fail("--resolve: allowed beside --cfg and --help")
    for word in known.overrides:
        if not re.match(r"~?[\w.@/]|\+\+?[\w.@/]", word):
            raise InputError(_unreadable(word))
    given = {word.lstrip("+").partition("=")[0] for word in known.overrides}
    if given >= {"checkpoint", "checkpoints"}:
        raise InputError("checkpoint: give either checkpoints=[A,B] or checkpoint=NAME, not both")


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
    for key, value, _ in leaves(result):
        if value == MISSING:
            raise InputError(f"{key}: a value is needed")
    _check(result)
    return result


def from_overrides(*overrides: str, config_name: str = "sweep") -> tuple[SweepConfig, list[CheckpointConfig]]:
    """Compose the config as the command line would, for use from Python.

    Args:
        overrides: Hydra overrides such as `"prompts.n=8"`.
        config_name: top-level file in `conf/`.

    Returns:
        The config and the definitions of its checkpoints.

    Raises:
        InputError: an override is wrong; the message names its key.
    """
    register()
    check_words(overrides)
    with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
        try:
            composed = compose(config_name=config_name, overrides=list(overrides))
        except Exception as error:
            line = explain(error, overrides)
            if line is None:
                raise
            raise InputError(line) from error
        config = typed(composed)
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
    if name not in _options("checkpoint"):
        raise InputError(f"checkpoints: '{name}' is unknown; allowed: {', '.join(_options('checkpoint'))}")
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    loaded = hydra.config_loader.load_configuration(
        f"checkpoint/{name}", overrides=[], run_mode=RunMode.RUN, validate_sweep_overrides=False
    )
    result = OmegaConf.to_object(loaded.checkpoint)
    assert isinstance(result, CheckpointConfig)
    return result


def _check(config: SweepConfig) -> None:
    """Check what a type cannot say; the first fault is reported."""
    for key, value, problem in _faults(config):
        raise InputError(f"{key}={'null' if value is None else value}: {problem}")


def _faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    scales = config.guidance_scales
    if config.checkpoint is None and not config.checkpoints:
        yield "checkpoints", "[]", "name at least one checkpoint"
    if len(set(config.checkpoints)) < len(config.checkpoints):
        yield "checkpoints", _list(config.checkpoints), "each checkpoint once"
    if not scales:
        yield "guidance_scales", "[]", "name at least one scale, such as [3.0]"
    for scale in scales:
        if not math.isfinite(scale) or scale < 0:
            yield "guidance_scales", _list(scales), "a guidance scale is a finite number of at least 0"
    if len(set(scales)) < len(scales):
        yield "guidance_scales", _list(scales), "each scale once"
    yield from _number_faults(config)
    yield from _choice_faults(config)
    yield from _metric_faults(config)
    if not re.fullmatch(r"[A-Za-z]{3}", config.energy.country):
        yield "energy.country", config.energy.country, "allowed: a three-letter ISO code, such as USA or FRA"
    if config.out is not None and (not config.out.strip() or Path(config.out).is_file()):
        yield "out", config.out, "a folder is needed"


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
    sizes = ("protocol.resolution", "protocol.distance.batch_size", "protocol.score.batch_size")
    for key in ("batch_size", "shard_size", "workers", *sizes):
        value = _get(config, key)
        if value is not None and value < 1:
            yield key, value, "at least 1"


def _choice_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    for key in CHOICES:
        value = _get(config, key)
        for given in value if isinstance(value, dict) else [value]:
            if given is not None and key != "device" and given not in CHOICES[key]:
                yield key, given, f"allowed: {_allowed(key)}"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", config.device):
        yield "device", config.device, f"allowed: {CHOICES['device']}"


def _metric_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    metrics = config.protocol.metrics
    if not metrics or len(set(metrics)) < len(metrics):
        yield "protocol.metrics", _list(metrics), "name at least one metric, and each once"
    for metric in metrics:
        if metric not in METRIC_NEEDS:
            yield "protocol.metrics", metric, f"allowed: {', '.join(METRIC_NEEDS)}"
            continue
        key, kind = METRIC_NEEDS[metric]
        if _get(config, key) != kind:
            yield (
                "protocol.metrics",
                metric,
                f"this name stands for {key}={kind}, here it is {_get(config, key)}",
            )


def _check_checkpoint(definition: CheckpointConfig, protocol: ProtocolConfig) -> None:
    """Refuse a definition that is not sound, or whose images the protocol was not made for."""
    for key, value, problem in _checkpoint_faults(definition):
        raise InputError(f"checkpoint.{key}={'null' if value is None else value}: {problem}")
    if definition.resolution < protocol.resolution:
        raise InputError(
            f"checkpoints: '{definition.name}' draws {definition.resolution}-pixel images, too small for "
            f"protocol={protocol.name} ({protocol.resolution} pixels); choose a matching protocol or "
            "experiment"
        )


def _checkpoint_faults(definition: CheckpointConfig) -> Iterator[tuple[str, Any, str]]:
    for key in ("conditioning", "prediction_type", "text"):
        if getattr(definition, key) not in CHOICES[f"checkpoint.{key}"]:
            yield key, getattr(definition, key), f"allowed: {_allowed(f'checkpoint.{key}')}"
    if not re.fullmatch(r"\w[\w.-]*", definition.name):
        yield "name", definition.name, "allowed: letters, digits, '.', '_' and '-' (it names folders)"
    if definition.resolution < 8 or definition.resolution % 8:
        yield "resolution", definition.resolution, "allowed: a multiple of 8"
    if not 0 < definition.beta_start < 1:
        yield "beta_start", definition.beta_start, "allowed: above 0, below 1"
    if not definition.beta_start <= definition.beta_end < 1:
        yield "beta_end", definition.beta_end, "allowed: at least beta_start, below 1"
    level = definition.noise_level
    if definition.conditioning == "upscaling":
        if level is None or not 0 <= level < 1000:
            yield "noise_level", level, "allowed: 0 to 999"
    elif level is not None:
        yield "noise_level", level, "only a checkpoint with conditioning=upscaling has one"


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
    if isinstance(error, AssertionError):  # OmegaConf's answer to a key below a group that is null
        return _below_null(words) if _raised_in(error) == "omegaconf" else None
    if isinstance(error, MissingConfigException):
        return _unknown_option(str(error))
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _key_problem(cause)
    return _hydra_problem(_one_line(error)) if isinstance(error, HydraException) else None


def _raised_in(error: Exception) -> str:
    """Return the top-level package of the code that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _below_null(words: Sequence[str]) -> str:
    group = next(
        (word.partition(".")[0].lstrip("+") for word in words if word.startswith("checkpoint.")), None
    )
    if group is None:
        return f"{' '.join(words)}: a key below a group that is null"
    return "checkpoint.*: say which checkpoint to change: checkpoint=NAME checkpoint.KEY=VALUE"


def _unreadable(word: str | None) -> str:
    return f"cannot read the override '{word}': write KEY=VALUE, lists as KEY=[A,B], without spaces"


def _hydra_problem(line: str) -> str:
    ambiguous = re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", line)
    if ambiguous is not None:
        key, value = ambiguous.groups()
        return f"{key}={value}: one value is needed; a list is written {key}=[{value}]"
    return line


def _unknown_option(message: str) -> str:
    found = re.search(r"Could not find '([^']+)/([^'/]+)'", message)
    if found is None:
        return " ".join(message.split())
    group, name = found.groups()
    options = re.findall(r"^\t(\S+)$", message.partition("Config search path")[0], re.MULTILINE)
    return (
        f"{group}={name}: unknown; allowed: {', '.join(option for option in options if option != 'schema')}"
    )


def _key_problem(cause: OmegaConfBaseException) -> str:
    first = str(cause).splitlines()[0]
    key = cause.full_key or "config"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return _no_such_key(key)
    if "not a ListConfig" in first:
        return f"{key}: a list is needed, such as {key}=[...]"
    if "is not Optional" in first:
        return f"{key}: null is not allowed"
    if "is not a subclass of" in first:
        return f"{key}: it holds keys of its own; allowed: {_below(key)}"
    if "does not support deletion" in first:
        return f"{key}: a key cannot be removed"
    wrong = re.match(r"Value '(.*?)' (?:of type|is not).*(Integer|Float|bool)\b", first)
    if wrong is not None:
        kind = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}[wrong[2]]
        return f"{key}={wrong[1]}: allowed: {kind}"
    return f"{key}: {first[:1].lower()}{first[1:]}"


def _no_such_key(key: str) -> str:
    if key.startswith("checkpoint.components."):
        return f"{key}: not in this checkpoint; allowed with a leading +: {_allowed('checkpoint.components')}"
    keys = [name for name, _ in _schema_keys(SweepConfig)]
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"keys: {', '.join(k for k in keys if '.' not in k)}"
    return f"{key}: there is no such key; {hint}"


def _below(group: str) -> str:
    keys = [name for name, _ in _schema_keys(SweepConfig)]
    return ", ".join(key for key in keys if key.rpartition(".")[0] == group)


def _schema_keys(schema: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield `(dotted key, is identity)` of every leaf that the schema declares."""
    hints = get_type_hints(schema)
    for declared in dataclasses.fields(schema):
        key = f"{prefix}{declared.name}"
        nested = [
            kind
            for kind in (hints[declared.name], *get_args(hints[declared.name]))
            if dataclasses.is_dataclass(kind)
        ]
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


def _list(values: Sequence[Any]) -> str:
    """Return a list as it is written on the command line."""
    return f"[{','.join(map(str, values))}]"
