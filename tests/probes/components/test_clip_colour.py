"""Colours of objects, with an extractor whose directions are colours themselves."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import pytest

from sd2eval.extractors.base import Extractor
from sd2eval.probes import components
from sd2eval.probes.base import Unavailable
from sd2eval.probes.components.clip_colour import GREY, ClipColour, cut_out
from sd2eval.probes.sightings import Found
from tests.probes.making import loaded, settings

RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def looks(images: np.ndarray) -> dict[str, np.ndarray]:
    """The mean colour of what is not grey, as a direction."""
    pixels = images[0].reshape(-1, 3).astype(np.float32)
    mean = pixels[(pixels != GREY).any(axis=1)].mean(axis=0)
    return {"features": (mean / np.linalg.norm(mean))[None]}


def reads(texts: Sequence[str]) -> np.ndarray:
    """The colour that a sentence names."""
    return np.array([next(rgb for name, rgb in RGB.items() if name in text) for text in texts], np.float32)


COLOURS = ClipColour(
    name="colours",
    digest="0" * 64,
    extractor=Extractor(name="colours", digest="0" * 64, images=looks, texts=reads),
    colours=tuple(RGB),
    templates=("a {colour} {thing}", "the {thing} is {colour}"),
)


def test_the_colour_is_that_of_the_object_and_not_of_what_is_around_it() -> None:
    image = np.full((20, 20, 3), RGB["green"], np.uint8)
    image[5:10, 5:10] = RGB["blue"]
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    masked = Found(label="cup", score=1, box=(2, 2, 14, 14), mask=mask)
    whole = Found(label="cup", score=1, box=(2, 2, 14, 14))
    outside = Found(label="cup", score=1, box=(30, 30, 40, 40))
    assert COLOURS.colours_of(image, [masked, whole, outside]) == ["blue", "green", ""]


def test_an_object_is_cut_out_on_grey() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    part = cut_out(image, Found(label="x", score=1, box=(1, 1, 9, 3), mask=mask))
    assert part is not None
    assert part.shape == (2, 3, 3)
    assert part[0, 1].tolist() == image[1, 2].tolist()
    assert (np.delete(part.reshape(-1, 3), 1, axis=0) == GREY).all()


def test_the_version_of_its_package_is_part_of_what_an_answer_rests_on() -> None:
    (package,) = components.packages(settings("clip_colour"))
    assert version(package)


def test_weights_that_are_not_there_give_one_line() -> None:
    with pytest.raises(Unavailable, match=r"'/nowhere/clip\.pt' is not on this machine"):
        loaded("clip_colour", model="ViT-L-14-quickgelu", pretrained="openai", source="/nowhere/clip.pt")
