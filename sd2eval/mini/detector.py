"""An analytic detector of the world's objects: which shapes of which colours a picture shows, and where.

Objects are saturated and backgrounds are not, so chroma segments them, hue names the colour, and the best
overlap with the shapes' own silhouettes names the shape. No training, no thresholds tuned on generated
pictures.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sd2eval.mini.render import background, shape_mask
from sd2eval.mini.world import COLOURS, PLACES, SHAPES, SIZES, Relation, Scene

#: Smallest chroma (max - min of RGB in [0, 1]) of an object's pixel; backgrounds stay below 0.2.
MIN_CHROMA = 0.30
#: Smallest object, as a share of the picture: a third of the smallest one that is ever rendered.
MIN_AREA = 0.010
#: Smallest overlap (intersection over union) with a silhouette for a region to count as an object.
MIN_FIT = 0.60
#: Chroma of a half-covered edge pixel relative to the object's solid part.
COVERED = 0.55


@dataclass(frozen=True, slots=True)
class Detected:
    """One object that a picture shows.

    Centre (x, y) and half extent r are shares of the picture's width; ``fit`` is the overlap, 0 to 1.
    ``box`` is (left, top, right, bottom) in pixels, right and bottom exclusive.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    r: float
    fit: float
    box: tuple[int, int, int, int]


def detect(image: NDArray[np.uint8]) -> list[Detected]:
    """Objects in an image, uint8 [H, H, 3], from left to right."""
    names = list(COLOURS)
    classes, strength = hue_classes(image), chroma(image)
    found = []
    for number, colour in enumerate(names):
        regions, _ = ndimage.label(classes == number, structure=np.ones((3, 3)))
        for region, box in enumerate(ndimage.find_objects(regions), start=1):
            mask = _without_fringe(regions[box] == region, strength[box])
            if mask.sum() >= MIN_AREA * classes.size:
                found.append(_identify(mask, box, colour, len(image)))
    return sorted((one for one in found if one.fit >= MIN_FIT), key=lambda one: one.x)


def hue_classes(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index into ``COLOURS`` of each pixel's nearest hue, -1 where the chroma is too low: int64 [H, W]."""
    r, g, b = np.moveaxis(image.astype(np.float64) / 255.0, -1, 0)
    high, c = np.maximum(np.maximum(r, g), b), np.maximum(chroma(image), 1e-9)
    hue = np.where(high == r, (g - b) / c % 6, np.where(high == g, (b - r) / c + 2, (r - g) / c + 4)) / 6
    distance = np.abs(hue[..., None] - _hues())
    nearest = np.minimum(distance, 1 - distance).argmin(axis=-1)
    return np.where(c >= MIN_CHROMA, nearest, -1)


def chroma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Largest minus smallest of R, G, B of each pixel, in [0, 1]: float64 [H, W]."""
    scaled = image.astype(np.float64) / 255.0
    spread: NDArray[np.float64] = scaled.max(axis=-1) - scaled.min(axis=-1)
    return spread


@cache
def _hues() -> NDArray[np.float64]:
    return np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in COLOURS.values()])


def _without_fringe(mask: NDArray[np.bool_], strength: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Without the soft edge, where the object covers less than half a pixel (it would close small rings)."""
    return mask & (strength > COVERED * np.quantile(strength[mask], 0.8))


def _identify(mask: NDArray[np.bool_], box: tuple[slice, slice], colour: str, size: int) -> Detected:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = box[0].start + int(rows[0]), box[1].start + int(columns[0])
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = mask.shape
    fits = _fits(mask)
    shape = max(fits, key=lambda name: fits[name])
    r = max(height, width) / 2 / size
    return Detected(
        shape=shape,
        colour=colour,
        size=min(SIZES, key=lambda name: abs(SIZES[name] - r)),
        x=(left + width / 2) / size,
        y=(top + height / 2) / size,
        r=r,
        fit=fits[shape],
        box=(left, top, left + width, top + height),
    )


def _fits(mask: NDArray[np.bool_]) -> dict[str, float]:
    """Intersection over union of a mask, cropped to its object, with each shape's silhouette of that size."""
    templates = {shape: shape_mask(shape, *mask.shape) for shape in SHAPES}
    return {s: float((mask & t).sum() / (mask | t).sum()) for s, t in templates.items()}


def detect_place(image: NDArray[np.uint8]) -> str:
    """The place whose empty picture is nearest in colour to the pixels without objects."""
    quiet = ndimage.binary_erosion(hue_classes(image) < 0, iterations=2)
    if not quiet.any():
        quiet = np.ones_like(quiet)
    rgb = image / 255.0
    errors = {p: float(np.abs(rgb - background(p, len(image))[0])[quiet].mean()) for p in PLACES}
    return min(errors, key=lambda place: errors[place])


def relation_between(first: Detected, second: Detected) -> Relation:
    """How ``first`` stands to ``second``, by the larger of the horizontal and vertical offsets."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "on top of" if dy < 0 else "below"


def shows_object(image: NDArray[np.uint8], scene: Scene) -> bool:
    """Whether the first object of ``scene`` is there with its shape and, where it is named, its colour."""
    wanted = scene.items[0]
    return any(
        one.shape == wanted.shape and (one.colour == wanted.colour or not wanted.names_colour)
        for one in detect(image)
    )
