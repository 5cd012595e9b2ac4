"""Scenes to pixels: analytic, antialiased, numpy only, at any resolution.

Coordinates are shares of the image's width: x to the right, y downwards, both in [0, 1]. Every object is a
signed distance field (negative inside), a brightness that multiplies its colour (so that shading never
changes the hue) and a bulge (how far its surface comes towards the viewer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sd2eval.mini.world import COLOURS, SIZES, Item, Scene

Array = NDArray[np.float64]

#: Width of an edge in pixels. Slightly soft, as from a lens: sharper edges cost the autoencoder decibels.
EDGE_PIXELS = 1.8

#: Place -> (sky or wall, ground, horizon). All are low in chroma, so that chroma alone separates the objects.
BACKGROUNDS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "meadow": ((0.78, 0.84, 0.88), (0.46, 0.55, 0.40), 0.50),
    "beach": ((0.66, 0.76, 0.80), (0.84, 0.78, 0.66), 0.42),
    "snow": ((0.72, 0.75, 0.80), (0.94, 0.95, 0.97), 0.55),
    "night": ((0.07, 0.08, 0.14), (0.20, 0.20, 0.24), 0.60),
    "room": ((0.80, 0.76, 0.72), (0.50, 0.43, 0.38), 0.64),
}

#: Inverse depth (larger is nearer, as MiDaS predicts it) of the sky, of the ground at the horizon and of its
#: near edge.
FAR, HORIZON, NEAR = 0.0, 0.15, 0.60


@dataclass(frozen=True, slots=True)
class Placed:
    """One object where it stands: centre (x, y), half extent r, and inverse depth of its middle."""

    shape: str
    colour: str
    x: float
    y: float
    r: float
    depth: float


# --- shapes: (dx, dy) in half extents from the centre -> signed distance, brightness, bulge -----------------


def _ball(dx: Array, dy: Array) -> tuple[Array, Array, Array]:
    radius = np.hypot(dx, dy)
    light = 1.0 - 0.22 * np.hypot(dx + 0.35, dy + 0.35)
    return radius - 1.0, light, np.sqrt(np.clip(1.0 - radius**2, 0.0, None))


def _ring(dx: Array, dy: Array) -> tuple[Array, Array, Array]:
    tube = np.abs(np.hypot(dx, dy) - 0.73)
    return tube - 0.27, 0.9 - 0.12 * (dx + dy), 0.3 * np.sqrt(np.clip(1.0 - (tube / 0.27) ** 2, 0.0, None))


def _cone(dx: Array, dy: Array) -> tuple[Array, Array, Array]:
    half = np.clip((dy + 1.0) / 1.8, 1e-6, None) * 0.95
    slope = (np.abs(dx) - half) * np.cos(np.arctan(0.95 / 1.8))
    inside = np.minimum(np.maximum(slope, np.maximum(dy - 0.8, -1.0 - dy)), _ellipse(dx, dy - 0.8, 0.95, 0.2))
    across = np.clip(dx / half, -1.0, 1.0)
    return inside, 0.93 - 0.22 * across, 0.8 * half * np.sqrt(1.0 - across**2)


def _cube(dx: Array, dy: Array) -> tuple[Array, Array, Array]:
    """Oblique view: a front face, a brighter top and a darker right side, each ``_CUBE_DEPTH`` wide."""
    d = _CUBE_DEPTH
    hull = np.maximum(np.maximum(np.abs(dx), np.abs(dy)) - 1.0, (np.abs(dx + dy) - (2.0 - d)) / np.sqrt(2.0))
    side = np.clip((dx - (1.0 - d)) / 0.12 + 0.5, 0.0, 1.0) * (dx + dy > 0)
    top = np.clip((-(dy + 1.0 - d)) / 0.12 + 0.5, 0.0, 1.0) * (dx + dy <= 0)
    recede = np.clip(np.maximum(dx, -dy) - (1.0 - d), 0.0, d) / d
    return hull, 0.86 - 0.2 * side + 0.14 * top, 0.7 - 0.5 * recede


_CUBE_DEPTH = 0.5
_SHAPES: dict[str, Callable[[Array, Array], tuple[Array, Array, Array]]] = {
    "cube": _cube,
    "ball": _ball,
    "cone": _cone,
    "ring": _ring,
}


def _ellipse(dx: Array, dy: Array, a: float, b: float) -> Array:
    """First-order signed distance to an ellipse with half axes a and b."""
    f = np.hypot(dx / a, dy / b)
    return f * (f - 1.0) / np.maximum(np.hypot(dx / a**2, dy / b**2), 1e-6)


@cache
def shape_mask(shape: str, height: int, width: int) -> NDArray[np.bool_]:
    """A shape's silhouette filling a box: bool [height, width], true where it covers half of a pixel."""
    fine = 8
    x = _extent(shape) * (2 * (np.arange(width * fine) + 0.5) / (width * fine) - 1)
    y = 2 * (np.arange(height * fine) + 0.5) / (height * fine) - 1
    inside = _SHAPES[shape](*np.meshgrid(x, y))[0] < 0
    covered: Array = inside.reshape(height, fine, width, fine).mean(axis=(1, 3))
    return covered >= 0.5


def _extent(shape: str) -> float:
    """Half of a shape's width, in half extents."""
    return 0.95 if shape == "cone" else 1.0


# --- layout -------------------------------------------------------------------------------------------------


def place_objects(scene: Scene) -> list[Placed]:
    """The scene's objects where they stand.

    In the order of ``scene.items`` (copies of a counted item: left to right). No two objects overlap, and all
    lie within the image.
    """
    u = scene.layout
    if scene.kind == "single":
        return [_standing(scene.items[0], 0.24 + 0.52 * u[0], 0.68 + 0.28 * u[1])]
    if scene.kind == "count":
        return _row([scene.items[0]] * scene.count, u)
    if scene.kind == "trio":
        return _trio(scene)
    if scene.relation in ("left of", "right of"):
        left_first = scene.relation == "left of"
        row = _row(list(scene.items if left_first else scene.items[::-1]), u)
        return row if left_first else row[::-1]
    upper, lower = scene.items if scene.relation == "on top of" else scene.items[::-1]
    stack = _stack(upper, lower, 0.25 + 0.5 * u[0], 0.84 + 0.12 * u[1], u[2])
    return stack if scene.relation == "on top of" else stack[::-1]


def _row(items: list[Item], u: tuple[float, float, float, float]) -> list[Placed]:
    """Objects side by side, spread over the width, at nearly the same distance."""
    centres = {2: (0.25, 0.75), 3: (0.18, 0.5, 0.82)}[len(items)]
    wiggle = {2: 0.11, 3: 0.05}[len(items)]
    return [
        _standing(item, x + wiggle * (u[i] - 0.5), 0.69 + 0.24 * u[3] + 0.04 * (u[i] - 0.5))
        for i, (item, x) in enumerate(zip(items, centres, strict=True))
    ]


def _trio(scene: Scene) -> list[Placed]:
    u = scene.layout
    third_left = scene.relation == "left of"
    stack = _stack(
        scene.items[0], scene.items[1], (0.72 if third_left else 0.28) + 0.12 * (u[0] - 0.5), 0.9, u[2]
    )
    third = _standing(
        scene.items[2], (0.25 if third_left else 0.75) + 0.12 * (u[1] - 0.5), 0.82 + 0.12 * u[3]
    )
    return [*stack, third]


def _stack(upper: Item, lower: Item, x: float, bottom: float, u: float) -> list[Placed]:
    below = _standing(lower, x, bottom)
    r = SIZES[upper.size]
    above = Placed(upper.shape, upper.colour, x + 0.04 * (u - 0.5), below.y - below.r - r, r, below.depth)
    return [above, below]


def _standing(item: Item, x: float, bottom: float) -> Placed:
    """An object whose foot touches the ground at height ``bottom``: the lower in the picture, the nearer."""
    r = SIZES[item.size]
    return Placed(item.shape, item.colour, x, bottom - r, r, HORIZON + (NEAR - HORIZON) * bottom)


# --- pictures -----------------------------------------------------------------------------------------------


def _grid(size: int) -> tuple[Array, Array]:
    centres = (np.arange(size) + 0.5) / size
    return np.broadcast_to(centres, (size, size)), np.broadcast_to(centres[:, None], (size, size))


def _coverage(signed_distance: Array, size: int) -> Array:
    return np.clip(0.5 - signed_distance * size / EDGE_PIXELS, 0.0, 1.0)


def silhouettes(scene: Scene, size: int = 64) -> NDArray[np.bool_]:
    """Mask of each object in the order of :func:`place_objects`: bool [objects, size, size]."""
    x, y = _grid(size)
    return np.stack([_SHAPES[p.shape]((x - p.x) / p.r, (y - p.y) / p.r)[0] < 0 for p in place_objects(scene)])


def background(place: str, size: int = 64) -> tuple[Array, Array]:
    """Colours [size, size, 3] in [0, 1] and inverse depth [size, size] of a place without objects."""
    sky, ground, horizon = BACKGROUNDS[place]
    _, y = _grid(size)
    on_ground = _coverage(horizon - y, size)[..., None]
    near = np.clip((y - horizon) / (1.0 - horizon), 0.0, 1.0)
    light = (1.0 - 0.10 * near + 0.08 * np.clip(y / horizon, 0.0, 1.0) * (y < horizon))[..., None]
    colours = (np.array(sky) * (1.0 - on_ground) + np.array(ground) * on_ground) * light
    return np.clip(colours, 0.0, 1.0), np.where(y < horizon, FAR, HORIZON + (NEAR - HORIZON) * near)


def render(scene: Scene, size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The picture, uint8 [size, size, 3], and its inverse depth in [0, 1], float32 [size, size]."""
    colours, depth = background(scene.place, size)
    x, y = _grid(size)
    for p in place_objects(scene):
        distance, light, bulge = _SHAPES[p.shape]((x - p.x) / p.r, (y - p.y) / p.r)
        cover = _coverage(distance * p.r, size)
        paint = np.clip(np.array(COLOURS[p.colour]) * light[..., None], 0.0, 1.0)
        colours = colours * (1.0 - cover[..., None]) + paint * cover[..., None]
        depth = np.where(distance < 0, p.depth + 2.0 * p.r * bulge * 0.5, depth)
    return np.rint(colours * 255.0).astype(np.uint8), np.clip(depth, 0.0, 1.0).astype(np.float32)
