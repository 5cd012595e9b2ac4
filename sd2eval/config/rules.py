"""What a key allows beyond its type: rules yield `(key, value, problem)`, the first fault is reported."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sd2eval.config.schema import CheckpointConfig, EngineConfig, ProtocolConfig, SweepConfig
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, ROLES
from sd2eval.plugins import extractor_kinds
from sd2eval.stopping import AUTO

# The values a string key may take; the error message prints them.
CHOICES = {
    "device": "auto, cpu, cuda, cuda:N or mps",
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "images": ("all", "grid", "none"),
    "protocol.resize": ("bicubic", "lanczos", "bilinear", "bicubic_aliased", "bilinear_aliased"),
    "protocol.fit": ("crop", "squash", "none"),
    "protocol.quantize": ("round", "truncate"),
    "protocol.sample_at": ("checkpoint", "protocol"),
    "engine.cluster": ("slurm", "local"),
    "checkpoint.conditioning": ("text", "depth", "inpainting", "upscaling"),
    "checkpoint.prediction_type": ("epsilon", "v_prediction"),
    "checkpoint.text": ("open_clip", "clip"),
    "checkpoint.components": ("unet", "vae", "text_encoder", "tokenizer", "depth_estimator"),
}

EXTRACTOR_DTYPES = ("float32", "bfloat16", "float16")
WINDOWED = ("ssim", "lpips")
"""Beginnings of the names of metrics that look at windows of pixels, and so need some."""
WINDOWED_PIXELS = 32


LARGEST = 4096
"""Pixels a side; a larger attention map fits into no memory."""


def allowed(key: str) -> str:
    """Return the values of a key in `CHOICES`, as a message prints them."""
    choices = tuple(METRICS) if key == "protocol.metrics" else CHOICES[key]
    return choices if isinstance(choices, str) else ", ".join(choices)


def check(config: SweepConfig) -> None:
    """Check what a type cannot say.

    Raises:
        InputError: names the key and what is allowed.
    """
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
    if len(set(config.noise_levels)) < len(config.noise_levels):
        yield "noise_levels", _list(config.noise_levels), "each level once"
    yield from _prompt_faults(config)
    yield from _number_faults(config)
    yield from _choice_faults(config)
    yield from _protocol_faults(config.protocol)
    yield from _metric_faults(config)
    if not re.fullmatch(r"[A-Za-z]{3}", config.energy.country):
        yield "energy.country", config.energy.country, "allowed: a three-letter ISO code, such as USA or FRA"
    yield from _engine_faults(config.engine)
    if config.out is not None and (not config.out.strip() or Path(config.out).is_file()):
        yield "out", config.out, "a folder is needed"


def _prompt_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    prompts = config.prompts
    if not prompts.auto and type(prompts.n) is not int:
        yield "prompts.n", prompts.n, f"allowed: a whole number, or {AUTO}"
    for key in ("first", "most") if prompts.auto else ("n",):
        yield from _too_few(f"prompts.{key}", getattr(prompts, key), config.protocol.metrics)
    if prompts.auto and not config.precision:
        first = next(iter(config.protocol.metrics), "fid")
        yield "prompts.n", AUTO, f"say how precise, such as precision.{first}=0.3"
    if prompts.most is not None and not prompts.auto:
        yield "prompts.most", prompts.most, f"goes with prompts.n={AUTO} only"
    for name, target in config.precision.items():
        if not prompts.auto:
            yield f"precision.{name}", target, f"goes with prompts.n={AUTO} only"
        if name not in config.protocol.metrics:
            listed = ", ".join(config.protocol.metrics)
            yield f"precision.{name}", target, f"not measured; protocol.metrics has {listed}"
        if not 0 < target < math.inf:
            yield f"precision.{name}", target, "a standard error to reach is a finite number above 0"


def _too_few(key: str, n: int | None, metrics: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    if n is None:
        return
    if n < 2:
        yield key, n, "at least 2 prompts are needed for a standard error"
    for name in metrics:
        if name in METRICS and n < METRICS[name].smallest:
            yield key, n, f"{name} needs at least {METRICS[name].smallest} images"


def _number_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    if not 1 <= config.sampler.steps <= 1000:
        yield "sampler.steps", config.sampler.steps, "allowed: 1 to 1000 (the schedule has 1000 timesteps)"
    if not 0 <= config.sampler.eta <= 1:
        yield "sampler.eta", config.sampler.eta, "allowed: 0 (DDIM) to 1 (DDPM)"
    for key in ("seed", "prompts.seed"):
        if not 0 <= _get(config, key) < 2**63:
            yield key, _get(config, key), "allowed: 0 to 2**63 - 1"
    sizes = ("batch_size", "shard_size", "protocol.resolution", "engine.workers", "engine.tries")
    for key in (*sizes, "engine.minutes", "engine.cpus_per_worker"):
        value = _get(config, key)
        if value is not None and value < 1:
            yield key, value, "at least 1"
    if not all(0 <= level < 1000 for level in config.noise_levels):
        yield "noise_levels", _list(config.noise_levels), "allowed: 0 to 999"


def _choice_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    for key in CHOICES:
        value = _get(config, key)
        for given in value if isinstance(value, dict) else [value]:
            if given is not None and key != "device" and given not in CHOICES[key]:
                yield key, given, f"allowed: {allowed(key)}"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", config.device):
        yield "device", config.device, f"allowed: {CHOICES['device']}"


def _engine_faults(engine: EngineConfig) -> Iterator[tuple[str, Any, str]]:
    for field in dataclasses.fields(engine):
        value, only = getattr(engine, field.name), field.metadata.get("engines", [engine.name])
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if engine.name not in only and value != default:
            yield (
                f"engine.{field.name}",
                value,
                f"only engine={' and '.join(only)} has it, and this is engine={engine.name}",
            )
    if engine.workers is None and engine.name != "ray":
        yield "engine.workers", None, "say how many; only engine=ray takes as many as fit"
    if engine.gpus_per_worker is None and engine.name == "slurm":
        yield "engine.gpus_per_worker", None, "say how many; 0 for none"
    if engine.gpus_per_worker is not None and engine.gpus_per_worker < 0:
        yield "engine.gpus_per_worker", engine.gpus_per_worker, "at least 0"


def _metric_faults(config: SweepConfig) -> Iterator[tuple[str, Any, str]]:
    metrics = config.protocol.metrics
    if not metrics or len(set(metrics)) < len(metrics):
        yield "protocol.metrics", _list(metrics), "name at least one metric, and each once"
    for name in metrics:
        if name not in METRICS:
            yield "protocol.metrics", name, f"allowed: {', '.join(METRICS)}"
            continue
        if config.protocol.resolution < WINDOWED_PIXELS and name.startswith(WINDOWED):
            yield "protocol.metrics", name, f"protocol.resolution must be at least {WINDOWED_PIXELS} for it"
        slot, kinds = METRICS[name].extractor, METRICS[name].needs
        if slot and kinds and config.protocol.extractor(slot).kind not in kinds:
            # A published name is never put on another network's numbers.
            kind = config.protocol.extractor(slot).kind
            meant = f"{extractor_key(slot)}.kind={' or '.join(kinds)}"
            problem = f"this name stands for {meant}, here it is {kind}"
            yield "protocol.metrics", name, problem


def extractor_key(slot: str) -> str:
    """Return the dotted key of an extractor's settings."""
    return f"protocol.{slot}" if slot in ROLES else f"protocol.extractors.{slot}"


def _protocol_faults(protocol: ProtocolConfig) -> Iterator[tuple[str, Any, str]]:
    if protocol.sample_at == "protocol" and protocol.resolution % 8:
        yield "protocol.resolution", protocol.resolution, "drawn at, it must be a multiple of 8"
    quality = protocol.reference_jpeg
    if quality is not None and not 1 <= quality <= 100:
        yield "protocol.reference_jpeg", quality, "allowed: 1 to 100, or null"
    kinds = extractor_kinds()
    for slot in (*ROLES, *protocol.extractors):
        extractor, key = protocol.extractor(slot), extractor_key(slot)
        if extractor.kind not in kinds:
            yield f"{key}.kind", extractor.kind, f"allowed: {', '.join(kinds)}"
        if extractor.dtype not in EXTRACTOR_DTYPES:
            yield f"{key}.dtype", extractor.dtype, f"allowed: {', '.join(EXTRACTOR_DTYPES)}"
        if extractor.batch_size < 1:
            yield f"{key}.batch_size", extractor.batch_size, "at least 1"


def check_checkpoint(definition: CheckpointConfig, protocol: ProtocolConfig) -> None:
    """Refuse a definition that is not sound, or whose images the protocol was not made for.

    Raises:
        InputError: names the key and what is allowed.
    """
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
            yield key, getattr(definition, key), f"allowed: {allowed(f'checkpoint.{key}')}"
    if not re.fullmatch(r"\w[\w.-]*", definition.name):
        yield "name", definition.name, "allowed: letters, digits, '.', '_' and '-' (it names folders)"
    if not 8 <= definition.resolution <= LARGEST or definition.resolution % 8:
        yield "resolution", definition.resolution, f"allowed: a multiple of 8, up to {LARGEST}"
    if not 0 < definition.beta_start < 1:
        yield "beta_start", definition.beta_start, "allowed: above 0, below 1"
    if not definition.beta_start <= definition.beta_end < 1:
        yield "beta_end", definition.beta_end, "allowed: at least beta_start, below 1"
    if not math.isfinite(definition.lora_scale):
        yield "lora_scale", definition.lora_scale, "a finite number"
    if definition.lora is None and definition.lora_scale != 1:
        yield (
            "lora_scale",
            definition.lora_scale,
            "there is no LoRA to scale; name one with checkpoint.lora=FILE",
        )
    yield from _noise_level_faults(definition)


def _noise_level_faults(definition: CheckpointConfig) -> Iterator[tuple[str, Any, str]]:
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


def _list(values: Sequence[Any]) -> str:
    """Return a list as it is written on the command line."""
    return f"[{','.join(map(str, values))}]"
