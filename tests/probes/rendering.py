"""A bench whose pictures are rendered instead of generated, so that a probe's true answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sd2eval.checkpoints import Checkpoint, load
from sd2eval.config import CheckpointConfig
from sd2eval.config.probing import from_overrides, settings_of
from sd2eval.extractors import load_extractor
from sd2eval.images import as_reference, load_rgb
from sd2eval.probes.base import Drawn, ProbePrompt, Unavailable
from sd2eval.probes.run import whole_dataset
from tests.probes.making import loaded

Picture = Callable[[ProbePrompt], np.ndarray]


@dataclass
class RenderingBench:
    """The mini family's settings, data and networks; `picture` stands in for a checkpoint."""

    probe: str
    picture: Picture
    changed: dict[str, Any] = field(default_factory=dict)
    """Settings of the probe that are other than in conf/."""
    components: dict[str, Any] = field(default_factory=dict)
    """By role."""
    invalid: tuple[int, ...] = ()
    """Positions of prompts whose picture failed."""
    family: str = "mini"
    seed: int = 0
    guidance_scale: float = 3.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def _composed(self) -> tuple[Any, list[CheckpointConfig]]:
        return from_overrides("checkpoints=[512-base]")

    @property
    def config(self) -> Any:
        return self._composed[0]

    @property
    def checkpoint(self) -> CheckpointConfig:
        return self._composed[1][0]

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self.config, self.probe) | self.changed

    @cached_property
    def dataset(self) -> Any:
        return whole_dataset(self.config)

    @property
    def protocol(self) -> Any:
        return self.config.protocol

    def draw(self, checkpoint: CheckpointConfig, prompts: Sequence[ProbePrompt], scale: Any = None) -> Drawn:
        valid = np.array([i not in self.invalid for i in range(len(prompts))])
        images = np.stack([self.picture(one) for one in prompts])
        images[~valid] = 0
        return Drawn(images=images, valid=valid, truncated=np.zeros(len(prompts), bool))

    def extractor(self, slot: str) -> Any:
        return load_extractor(self.protocol.extractor(slot), self.device)

    def features(self, slot: str, images: np.ndarray) -> Any:
        return self.extractor(slot).images(images)["features"]

    def texts(self, slot: str, texts: Sequence[str]) -> Any:
        return self.extractor(slot).texts(list(texts))

    def component(self, name: str) -> Any:
        if isinstance(found := self.components.get(name), Unavailable):
            raise found
        kind = self.config.components[self.settings["components"][name]]
        return found or loaded(kind.kind, options=dict(kind.options), name=kind.name)

    def load(self, checkpoint: CheckpointConfig) -> Checkpoint:
        return load(checkpoint, self.device, torch.float32)

    def real(self, files: Sequence[Path]) -> np.ndarray:
        return np.stack([as_reference(load_rgb(file), self.protocol) for file in files])

    def reference(self) -> np.ndarray:
        return self.real(self.dataset.reference)

    def reference_features(self, slot: str) -> Any:
        return self.features(slot, self.reference())

    def annotations(self, name: str) -> Path:
        captions = Path(str(self.dataset.image_folder)).parent / "annotations" / "captions_mini.json"
        found = captions.with_name(captions.name.replace("captions", name))
        if not found.is_file():
            raise Unavailable(f"{found}: not there")
        return found

    def progress(self, text: str) -> None: ...


def component(**functions: Callable[..., Any]) -> Any:
    """A component with these functions."""
    return SimpleNamespace(name="given", digest="ab" * 32, **functions)
