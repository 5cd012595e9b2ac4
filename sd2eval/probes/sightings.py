"""What detectors and readers see in a picture. Boxes are (left, top, right, bottom) in its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rectangle = tuple[float, float, float, float]

KEYPOINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder"),
    *("left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip"),
    *("left knee", "right knee", "left ankle", "right ankle"),
)
"""COCO's 17 points of a person, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A line or word of text."""

    text: str
    confidence: float
    """0..1"""
    box: Rectangle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """An object."""

    label: str
    score: float
    """0..1"""
    box: Rectangle
    mask: NDArray[np.bool_] | None = None
    """[H, W] of the picture; None where the detector has boxes only."""
    colour: str = ""
    """Where the detector knows it."""

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Person:
    """A person with COCO's 17 points."""

    score: float
    box: Rectangle
    points: NDArray[np.float32]
    """[17, 2], x and y in pixels."""
    certainty: NDArray[np.float32]
    """[17], a logit: how sure the detector is of each point; above 0 counts as visible."""
