"""Typed rows that stages exchange and a run folder stores.

A record is plain data: no torch, no pandas, no paths. `SCHEMA_VERSION` is written into every run; a run
written by a newer schema is refused instead of being read wrongly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1

Direction = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One COCO caption with the image it describes."""

    caption_id: int
    """Key of the prompt: one image file, one noise, one row of every feature array."""
    image_id: int
    """COCO image the caption was written for; several captions share one."""
    image_file: str
    """File name inside the data set's image folder, such as `000000000139.jpg`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of one cell with everything needed to defend it: a row of `results.csv`."""

    checkpoint: str
    guidance_scale: float
    metric: str
    value: float
    stderr: float
    """Standard error of `value` in the metric's unit, from the sampling of the prompts."""
    n: int
    """Images that entered the value (expected minus declared invalid)."""
    direction: Direction
    unit: str
    protocol: str
    """Name and digest of the choices that move the number, such as `mini@1f0c2a9b`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One generated image in a shard's manifest."""

    caption_id: int
    guidance_scale: float
    sha256: str
    """Digest of the raw RGB bytes (height x width x 3, uint8, row-major)."""
    truncated: bool
    """The caption was longer than the text encoder's context and was cut."""
    invalid: str = ""
    """Why the image must not be averaged in (`non-finite`); empty for a valid image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """Energy of one contiguous task, as reported by codecarbon, or of its share."""

    stage: str
    """`setup`, `reference`, `load`, `sample`, `decode`, `features`, `write` or `metrics`."""
    seconds: float
    kwh: float
    kg_co2: float
    method: Literal["measured", "estimated"]
    """`measured` only when every counted component has a hardware sensor (RAPL, NVML)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmissionRow:
    """One row of `emissions.csv`; checkpoint and scale are empty for the setup row."""

    checkpoint: str
    guidance_scale: float | None
    stage: str
    seconds: float
    kwh: float
    kg_co2: float
    method: str
    grid: str
    """Electricity grid the kg CO2 assume, such as `USA`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """`run.json`: what was run, on what, with which inputs."""

    schema_version: int
    identity: str
    """SHA-256 of the identity fields; equal identities mean equal plans."""
    identity_fields: dict[str, Any]
    """The fields behind `identity`, by dotted key: config fields that move a number, and input digests."""
    config: dict[str, Any]
    """The whole resolved config, identity and runtime fields."""
    digests: dict[str, str]
    """Input name (`weights/512-base`, `data/captions`, `reference`) to SHA-256."""
    reference_n: int = 0
    """Images in the reference set; fewer than the data set has when some were missing and allowed to be."""
    git: dict[str, Any] = field(default_factory=dict)
    """`commit` and `dirty` of the sd2eval checkout; empty for an installed wheel."""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    """UTC, ISO 8601; informative only, no decision depends on it."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)
