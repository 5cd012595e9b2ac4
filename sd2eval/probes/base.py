"""What a probe is and gives: prompts, a measurement, rows with intervals, sentences, pictures. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sd2eval.errors import InputError

if TYPE_CHECKING:
    import torch

    from sd2eval.checkpoints import Checkpoint
    from sd2eval.config import CheckpointConfig, ProtocolConfig
    from sd2eval.dataset import Dataset

Direction = Literal["higher", "lower", "none"]
Images = NDArray[np.uint8]
Features = NDArray[np.float32]


class Unavailable(InputError):  # noqa: N818 - says what is the matter
    """A probe cannot be measured here or of this checkpoint; says why and what to do. The others go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePrompt:
    """One text to draw."""

    key: int
    """At least 0, unique in what is drawn together; with the run's seed it is the seed of the noise."""
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """What is known of it, such as `{"language": "de", "pair": "17"}`."""
    image_file: str = ""
    """File in the data set's image folder, where the prompt is a caption of it."""
    group: int = 0
    """Image, pair or template it belongs to: standard errors are clustered by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """The texts of a probe, and where they come from."""

    name: str
    source: str
    licence: str
    prompts: tuple[ProbePrompt, ...]
    digest: str
    """SHA-256 (hex) of what they were read or made from."""


NO_PROMPTS = PromptSet(
    name="none", source="the images of the data set", licence="", prompts=(), digest="0" * 64
)
"""Of a probe that draws nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number with what is needed to defend it; the run adds probe, checkpoint, scale and protocol."""

    part: str = ""
    """Slice such as `de`, `two_object` or `person`; empty is the whole."""
    metric: str
    value: float
    """NaN where nothing reliable can be said; then `note` says why."""
    stderr: float = math.nan
    low: float = math.nan
    """Lower end of the 95% interval."""
    high: float = math.nan
    n: int
    """Images (or words, pairs: `unit` or `note` says) that entered the value."""
    direction: Direction
    unit: str
    component: str = ""
    """What measured it, as `label` gives it; empty where nothing but arithmetic did."""
    error: float = math.nan
    """The component's measured error rate, 0..1; NaN if it has none."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in pixels of its picture, with a short label."""

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """One picture of a contact sheet."""

    image: Images
    """uint8 [H, W, 3]"""
    text: str
    """The prompt."""
    found: str = ""
    """What was measured in it."""
    good: bool | None = None
    """Whether it is what was asked for; None where that is no question."""
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a probe says about one checkpoint."""

    rows: Sequence[Row]
    sentences: Sequence[str]
    """Plain language; every number with its interval."""
    tiles: Sequence[Tile] = ()
    blurred: bool = False
    """Whether the pictures may offend, and so are blurred unless blur=false."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Images of prompts, in their order."""

    images: Images
    """uint8 [N, R, R, 3] at the protocol's resolution; an invalid image is black and must not be used."""
    valid: NDArray[np.bool_]
    """[N]"""
    truncated: NDArray[np.bool_]
    """[N], whether the text was longer than the text encoder's context and was cut."""


class Bench(Protocol):
    """What a probe is given to work with."""

    @property
    def family(self) -> str:
        """`mini` or `published`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """This probe's keys, from conf/probe_settings/ and the command line."""

    @property
    def seed(self) -> int:
        """Of the noise."""

    @property
    def guidance_scale(self) -> float:
        """At which a probe draws unless it says otherwise."""

    @property
    def dataset(self) -> Dataset:
        """The data set; `prompts` are all its captions in the order of the run's draw."""

    @property
    def protocol(self) -> ProtocolConfig:
        """Choices between image and score."""

    @property
    def device(self) -> torch.device:
        """Where networks run."""

    def draw(
        self,
        checkpoint: CheckpointConfig,
        prompts: Sequence[ProbePrompt],
        guidance_scale: float | None = None,
    ) -> Drawn:
        """Draw one image per prompt; what was drawn before is read.

        Raises:
            Unavailable: the checkpoint starts from an image.
            InputError: two prompts have the same key.
        """

    def features(self, slot: str, images: Images) -> Features:
        """Return float32 [N, d] of uint8 images [N, H, W, 3].

        `slot` is a role of the protocol (`distance`, `score`, `perceptual`) or one of `settings.extractors`.
        """

    def texts(self, slot: str, texts: Sequence[str]) -> Features:
        """Return float32 [N, d] of texts, to be compared with `features`."""

    def extractor(self, slot: str) -> Any:
        """Return the loaded `Extractor` itself, for its other outputs and its digest."""

    def component(self, name: str) -> Any:
        """Return a component, loaded once, by its role in `settings.components` or its name in conf/.

        Raises:
            Unavailable: it is not installed or not downloaded; says how to get it.
        """

    def load(self, checkpoint: CheckpointConfig) -> Checkpoint:
        """Return a checkpoint's networks, loaded once."""

    def reference(self) -> Images:
        """Return all of the data set's images, see `real`; for thousands of 512 pixels, gigabytes."""

    def real(self, files: Sequence[Path]) -> Images:
        """Return image files, such as `dataset.reference[:8]`, as the protocol shows them, [N, R, R, 3]."""

    def reference_features(self, slot: str) -> Features:
        """Return float32 [M, d] of the data set's images, in the order of `dataset.reference`, cached."""

    def annotations(self, name: str) -> Path:
        """Return an annotation file of the data set: `instances`, `person_keypoints` or `captions`.

        Raises:
            Unavailable: it is not beside the captions.
        """

    def progress(self, text: str) -> None:
        """Say what is being done; also the place where a Ctrl-C is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Prompts and a measurement that answer one sentence of the card."""

    name: str
    sentence: str
    """The card's words."""
    question: str
    """What is asked of a checkpoint, in one line that ends with a question mark."""
    prompts: Callable[[Bench], PromptSet]
    measure: Callable[[Bench, CheckpointConfig], Answer]
    draws: bool = True
    """Whether it draws from text; those that do not take image-conditioned checkpoints too, and seed and
    sampler move none of their numbers."""


def label(component: Any) -> str:
    """Return `name@digest8` of a component or an extractor."""
    return f"{component.name}@{component.digest[:8]}"
