"""The colour of an object by CLIP, zero-shot, on the object's own pixels (Ghosh et al. 2023, GenEval).

Everything outside its mask becomes grey, its box is cut out, and the colour whose sentences lie nearest to
the crop is its colour. Options: `colours`, and `templates` with places for {colour} and {thing}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ComponentConfig, ExtractorConfig
from sd2eval.extractors import open_clip
from sd2eval.extractors.base import Extractor
from sd2eval.probes.components.base import loading
from sd2eval.probes.sightings import Found

PACKAGES = ("open_clip_torch",)
GREY = 0x99
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = (
    "a photo of a {colour} {thing}",
    "a photo of a {colour}-colored {thing}",
    "a photo of a {colour} object",
)


@dataclass(frozen=True, kw_only=True)
class ClipColour:
    """Names colours of objects that were found."""

    name: str
    digest: str
    extractor: Extractor
    colours: tuple[str, ...]
    templates: tuple[str, ...]

    def colours_of(self, image: NDArray[np.uint8], objects: Sequence[Found]) -> list[str]:
        """Return the colour of each object in an image, uint8 [H, W, 3]."""
        assert self.extractor.images is not None
        named = []
        for one in objects:
            part = cut_out(image, one)
            if part is None:
                named.append("")
                continue
            seen = self.extractor.images(part[None])["features"][0]
            named.append(self.colours[int((self._sentences(one.label) @ seen).argmax())])
        return named

    def _sentences(self, thing: str) -> NDArray[np.float32]:
        """Return one direction per colour, the mean over the templates, float32 [colours, d]."""
        assert self.extractor.texts is not None
        texts = [t.format(colour=colour, thing=thing) for colour in self.colours for t in self.templates]
        features = (
            self.extractor.texts(texts).reshape(len(self.colours), len(self.templates), -1).mean(axis=1)
        )
        directions: NDArray[np.float32] = features / np.linalg.norm(features, axis=1, keepdims=True)
        return directions


def cut_out(image: NDArray[np.uint8], found: Found) -> NDArray[np.uint8] | None:
    """Return an object's box with grey around its mask, uint8 [h, w, 3]; None where nothing is in the box."""
    height, width = image.shape[:2]
    left, top, right, bottom = (round(value) for value in found.box)
    box = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    if found.mask is None:
        part = image[box].copy()
    else:
        part = np.where(found.mask[..., None], image, np.uint8(GREY))[box]
    return part if part.size else None


def needs(config: ComponentConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return open_clip.needs(_extractor(config))


def load(config: ComponentConfig, device: torch.device) -> ClipColour:
    """Load the OpenCLIP network `model` with the weights `pretrained` or of `source`.

    Raises:
        Unavailable: see `sd2eval.extractors.open_clip.load`.
    """
    with loading(config):
        extractor = open_clip.load(_extractor(config), device)
    return ClipColour(
        name=config.name,
        digest=extractor.digest,
        extractor=extractor,
        colours=tuple(config.options.get("colours", COLOURS)),
        templates=tuple(config.options.get("templates", TEMPLATES)),
    )


def _extractor(config: ComponentConfig) -> ExtractorConfig:
    return ExtractorConfig(
        name=config.name,
        kind="open_clip",
        model=config.model,
        pretrained=config.pretrained,
        source=config.source,
        preprocess=None,
        dtype=config.dtype,
        batch_size=config.batch_size,
    )
