"""The bench: what a probe works with, its parts loaded when used and shared by all probes of a call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sd2eval import checkpoints
from sd2eval.checkpoints import Checkpoint
from sd2eval.checkpoints.sources import local_path
from sd2eval.config import CheckpointConfig, ProbeConfig, ProtocolConfig
from sd2eval.config.probing import settings_of
from sd2eval.dataset import Dataset
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.images import as_reference, load_rgb
from sd2eval.metrics import ROLES
from sd2eval.probes import components
from sd2eval.probes.base import Drawn, Features, Images, ProbePrompt, Unavailable
from sd2eval.probes.drawing import Studio
from sd2eval.reference import files_digest, reference_digest, reference_features

REMEMBERED = 8
"""Feature arrays that are kept, because several probes look at the same images."""


@dataclass
class Shelf:
    """What the probes of a call share."""

    config: ProbeConfig
    dataset: Dataset
    studio: Studio
    device: torch.device
    extractors: dict[str, Extractor] = field(default_factory=dict)
    components: dict[str, Any] = field(default_factory=dict)
    remembered: dict[tuple[str, str], Features] = field(default_factory=dict)
    _files_digest: str = ""
    _digests: dict[Path, str] = field(default_factory=dict)

    def digest_of(self, path: Path) -> str:
        """Return the SHA-256 over the files of a folder, or of a file; each is read once in a call."""
        if path not in self._digests:
            files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
            self._digests[path] = components.base.files_digest(files)
        return self._digests[path]

    @property
    def files_digest(self) -> str:
        """SHA-256 over the data set's images."""
        self._files_digest = self._files_digest or files_digest(self.dataset.reference)
        return self._files_digest


@dataclass
class Workbench:
    """`sd2eval.probes.base.Bench` for one probe."""

    probe: str
    shelf: Shelf
    used: dict[str, str] = field(default_factory=dict)
    """Digests of the networks and components that were used, by name."""
    lacking: set[str] = field(default_factory=set)
    """Components that were asked for and could not be had."""

    @property
    def family(self) -> str:
        """See `Bench`."""
        return self.shelf.config.family

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Bench`."""
        return settings_of(self.shelf.config, self.probe)

    @property
    def seed(self) -> int:
        """See `Bench`."""
        return self.shelf.config.seed

    @property
    def guidance_scale(self) -> float:
        """See `Bench`."""
        return float(self.settings.get("guidance_scale", self.shelf.config.guidance_scale))

    @property
    def dataset(self) -> Dataset:
        """See `Bench`."""
        return self.shelf.dataset

    @property
    def protocol(self) -> ProtocolConfig:
        """See `Bench`."""
        return self.shelf.config.protocol

    @property
    def device(self) -> torch.device:
        """See `Bench`."""
        return self.shelf.device

    def draw(
        self,
        checkpoint: CheckpointConfig,
        prompts: Sequence[ProbePrompt],
        guidance_scale: float | None = None,
    ) -> Drawn:
        """See `Bench`."""
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return self.shelf.studio.draw(checkpoint, prompts, scale)

    def features(self, slot: str, images: Images) -> Features:
        """See `Bench`."""
        extractor = self.extractor(slot)
        if extractor.images is None:
            raise Unavailable(f"extractor '{extractor.name}': has no features of images")
        key = (extractor.name, hashlib.sha256(np.ascontiguousarray(images).data).hexdigest())
        kept = self.shelf.remembered
        if key not in kept:
            while len(kept) >= REMEMBERED:
                kept.pop(next(iter(kept)))
            kept[key] = extractor.images(images)["features"]
        return kept[key]

    def texts(self, slot: str, texts: Sequence[str]) -> Features:
        """See `Bench`."""
        extractor = self.extractor(slot)
        if extractor.texts is None:
            raise Unavailable(f"extractor '{extractor.name}': has no embeddings of texts")
        return extractor.texts(list(texts))

    def extractor(self, slot: str) -> Extractor:
        """See `Bench`."""
        config = self._extractor_config(slot)
        loaded = self.shelf.extractors
        if config.name not in loaded:
            self.progress(f"loading {config.name}")
            loaded[config.name] = load_extractor(config, self.device)
        self.used[config.name] = loaded[config.name].digest
        return loaded[config.name]

    def _extractor_config(self, slot: str) -> Any:
        if slot in ROLES:
            return self.protocol.extractor(slot)
        named = dict(self.settings.get("extractors") or {})
        name = named.get(slot, slot)
        assert name in named.values(), f"settings.{self.probe}.extractors does not name '{slot}'"
        return self.shelf.config.extractors[name]

    def component(self, name: str) -> Any:
        """See `Bench`."""
        named = dict(self.settings.get("components") or {})
        own = named.get(name, name)
        assert own in named.values(), f"settings.{self.probe}.components does not name '{name}'"
        loaded = self.shelf.components
        if own not in loaded:
            self.progress(f"loading {own}")
            try:
                loaded[own] = components.load(self.shelf.config.components[own], self.device)
            except Unavailable:
                self.lacking.add(own)
                raise
        self.used[own] = loaded[own].digest
        return loaded[own]

    def load(self, checkpoint: CheckpointConfig) -> Checkpoint:
        """See `Bench`."""
        studio = self.shelf.studio
        if checkpoint.name not in studio.loaded:
            self.progress(f"loading {checkpoint.name}")
            studio.loaded.clear()  # its memory is needed
            found, dtype = studio.weights[checkpoint.name].sources, getattr(torch, studio.dtype)
            studio.loaded[checkpoint.name] = checkpoints.load(checkpoint, self.device, dtype, found)
        return studio.loaded[checkpoint.name]

    def reference(self) -> Images:
        """See `Bench`."""
        return self.real(self.dataset.reference)

    def real(self, files: Sequence[Path]) -> Images:
        """See `Bench`."""
        shown = []
        for file in files:
            self.studio_check()
            shown.append(as_reference(load_rgb(file), self.protocol))
        return np.stack(shown)

    def reference_features(self, slot: str) -> Features:
        """See `Bench`."""
        extractor = self.extractor(slot)
        config = self._extractor_config(slot)
        protocol = self.protocol if slot in ROLES else replace(self.protocol, extractors={slot: config})
        key = reference_digest(self.shelf.files_digest, protocol, slot, extractor)
        wanted = {slot: (extractor, key)}
        self.progress("reading the real images")
        files, check = self.dataset.reference, self.studio_check
        return reference_features(files, protocol, wanted, lambda _: check())[slot]

    def annotations(self, name: str) -> Path:
        """See `Bench`."""
        data = self.shelf.config.data
        root = local_path(data.root or "")
        assert root is not None  # the data set was read from there
        captions = root / data.captions
        found = captions.with_name(captions.name.replace("captions", name, 1))
        if not found.is_file():
            raise Unavailable(f"{found}: there is no such file beside the captions, and this probe needs it")
        return found

    def progress(self, text: str) -> None:
        """See `Bench`."""
        self.studio_check()
        self.shelf.studio.progress.status(f"{self.probe}: {text}")

    def studio_check(self) -> None:
        """Raise `Stopped` if a signal came."""
        self.shelf.studio.interrupt.check()
