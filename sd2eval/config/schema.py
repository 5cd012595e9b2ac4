"""Every key a user can set, and its type.

Each leaf is declared *identity* (it changes pixels or scores and is hashed) or *runtime* (it never does); a
test fails until a new field is declared one or the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING

from sd2eval.metrics.metric import ROLES
from sd2eval.stopping import AUTO


def _identity() -> Any:
    """Declare a field that changes pixels or scores."""
    return dataclasses.field(default=MISSING, metadata={"identity": True})


def _runtime() -> Any:
    """Declare a field that never changes a number."""
    return dataclasses.field(default=MISSING, metadata={"identity": False})


def _of_engine(engines: str, default: Any) -> Any:
    """Declare a runtime field that only some engines have; a mutable default is given by its maker."""
    given = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(**given, metadata={"identity": False, "engines": engines.split()})


REAL_GEOMETRY = ("resolution", "resize", "fit", "reference_jpeg")
"""Settings of a protocol that move real images."""


@dataclass(kw_only=True)
class PromptsConfig:
    """Which captions."""

    n: Any = _identity()  # a whole number, or `auto` (`rules` checks it: OmegaConf cannot merge a union)
    seed: int = _identity()
    first: int = _identity()  # of `auto`, as `most`
    most: int | None = _identity()

    @property
    def auto(self) -> bool:
        """Whether each cell stops when it is precise enough."""
        return bool(self.n == AUTO)


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
    preprocess: str | None = _identity()  # null: the kind's own
    dtype: str = _identity()
    batch_size: int = _runtime()


@dataclass(kw_only=True)
class ProtocolConfig:
    """Every choice that moves a number between the image and the score."""

    name: str = _identity()
    resolution: int = _identity()
    resize: str = _identity()
    fit: str = _identity()
    quantize: str = _identity()
    reference_jpeg: int | None = _identity()  # quality the real images pass through; null: they do not
    sample_at: str = _identity()  # whose resolution is drawn at
    distance: ExtractorConfig = _identity()
    score: ExtractorConfig = _identity()
    perceptual: ExtractorConfig = _identity()
    # Further ones, each an ExtractorConfig, by the names that metrics use; `config.typed` fills them in.
    extractors: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"identity": True})
    metrics: list[str] = _identity()

    def extractor(self, slot: str) -> ExtractorConfig:
        """Return the network in a role (`distance`, `score`, `perceptual`), or a further one by its name."""
        found: ExtractorConfig = getattr(self, slot) if slot in ROLES else self.extractors[slot]
        return found


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
    architecture: str | None = _identity()  # how a single file is read; a folder has its own configs
    lora_scale: float = _identity()
    source: str = _runtime()  # its digest is the identity, as of the next ones
    file: str | None = _runtime()
    revision: str | None = _runtime()
    components: dict[str, str] = _runtime()
    lora: str | None = _runtime()


@dataclass(kw_only=True)
class EnergyConfig:
    """What the kg CO2 assume."""

    country: str = _runtime()


@dataclass(kw_only=True)
class EngineConfig:
    """Who makes the shards."""

    name: str = _runtime()
    workers: int | None = _runtime()  # null: as many as fit, of `ray` only
    tries: int = _runtime()
    address: str | None = _of_engine("ray", None)  # of a cluster to join; null: one of its own
    cpus_per_worker: int = _of_engine("ray slurm", 1)
    gpus_per_worker: int | None = _of_engine("ray slurm", None)  # null: 1 where there are any
    cluster: str = _of_engine("slurm", "slurm")
    partition: str | None = _of_engine("slurm", None)
    account: str | None = _of_engine("slurm", None)
    minutes: int = _of_engine("slurm", 60)
    memory: str | None = _of_engine("slurm", None)
    python: str | None = _of_engine("slurm", None)
    folder: str | None = _of_engine("slurm", None)
    parameters: dict[str, Any] = _of_engine("slurm", dict)


@dataclass(kw_only=True)
class SweepConfig:
    """Everything `python -m sd2eval sweep` can be told."""

    checkpoints: list[str] = _identity()
    checkpoint: CheckpointConfig | None = dataclasses.field(default=None, metadata={"identity": True})
    guidance_scales: list[float] = _identity()
    noise_levels: list[int] = _identity()
    prompts: PromptsConfig = _identity()
    precision: dict[str, float] = dataclasses.field(default_factory=dict, metadata={"identity": True})
    seed: int = _identity()
    sampler: SamplerConfig = _identity()
    data: DataConfig = _identity()
    protocol: ProtocolConfig = _identity()
    dtype: str = _identity()
    device: str = _runtime()
    batch_size: int | None = _runtime()
    shard_size: int = _runtime()
    images: str = _runtime()
    out: str | None = _runtime()
    dry_run: bool = _runtime()
    progress: bool = _runtime()
    energy: EnergyConfig = _runtime()
    engine: EngineConfig = _runtime()


@dataclass(kw_only=True)
class ComponentConfig:
    """A detector, a reader of text or a head that a probe measures with."""

    name: str = _identity()
    kind: str = _identity()
    model: str | None = _identity()
    pretrained: str | None = _identity()
    source: str | None = _runtime()  # its digest is the identity
    dtype: str = _identity()
    batch_size: int = _runtime()
    options: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"identity": True})


@dataclass(kw_only=True)
class ProbeConfig:
    """Everything `python -m sd2eval probe` can be told."""

    family: str = _identity()
    checkpoints: list[str] = _identity()
    checkpoint: CheckpointConfig | None = dataclasses.field(default=None, metadata={"identity": True})
    guidance_scale: float = _identity()
    seed: int = _identity()
    captions_seed: int = _identity()
    sampler: SamplerConfig = _identity()
    data: DataConfig = _identity()
    protocol: ProtocolConfig = _identity()
    # By probe: what its files in conf/probe_settings/ say.
    settings: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"identity": True})
    # Every one in conf/component/, and the networks that settings name; `probing.typed` fills them in.
    components: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"identity": True})
    extractors: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"identity": True})
    dtype: str = _identity()
    device: str = _runtime()
    batch_size: int | None = _runtime()
    shard_size: int = _runtime()
    blur: bool = _runtime()
    out: str | None = _runtime()
    progress: bool = _runtime()
    energy: EnergyConfig = _runtime()
    engine: EngineConfig = _runtime()


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
        elif field.name == "extractors" or (
            isinstance(value, dict) and any(map(dataclasses.is_dataclass, value.values()))
        ):
            for name, one in sorted(value.items()):
                yield from leaves(one, f"{key}.{name}.", identity=declared)
        else:
            yield key, value, declared


def identity_fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves that change pixels or scores, by dotted key."""
    return {key: value for key, value, declared in leaves(config, prefix) if declared}


def digest(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of fields in canonical JSON (sorted keys, no white space)."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def features_digest(settings: Mapping[str, Any], files: str, weights: str) -> str:
    """Return the SHA-256 over everything that features of real images depend on.

    Args:
        settings: those of a protocol in `REAL_GEOMETRY`, and the identity fields of its network.
        files: digest of the images.
        weights: digest of the network.
    """
    return digest({**settings, "files": files, "weights": weights})


def schema_keys(schema: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
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
            yield from schema_keys(nested[0], f"{key}.")
