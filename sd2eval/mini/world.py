"""The mini world: which scenes exist, how often, and the truths planted in them.

A scene is a pure function of ``(seed, index)``. What the caption will *mention* is drawn first; attributes
that are not mentioned then come from the skewed distributions below and mentioned ones uniformly. The planted
truths are the module's constants, so that a probe's answer can be compared with what was put in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

_Name = TypeVar("_Name", bound=str)
Kind = Literal["single", "pair", "trio", "count"]
Relation = Literal["left of", "right of", "on top of", "below"]

SHAPES: tuple[str, ...] = ("cube", "ball", "cone", "ring")

#: Colour name -> sRGB in [0, 1] of a fully lit surface; hues are at least 25 degrees apart.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.93, 0.10, 0.10),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.96, 0.90, 0.08),
    "green": (0.10, 0.75, 0.15),
    "cyan": (0.08, 0.85, 0.88),
    "blue": (0.12, 0.25, 0.95),
    "purple": (0.55, 0.12, 0.88),
    "pink": (0.97, 0.18, 0.66),
}

#: Size name -> half extent, as a share of the image's width.
SIZES: dict[str, float] = {"small": 0.11, "large": 0.17}

PLACES: tuple[str, ...] = ("meadow", "beach", "snow", "night", "room")
RELATIONS: tuple[Relation, ...] = ("left of", "right of", "on top of", "below")
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "on top of": "below",
    "below": "on top of",
}

# --- planted truths -----------------------------------------------------------------------------------------

#: (a) P(colour | shape) of an object named without a colour: one favourite per shape, the rest shared evenly.
FAVOURITE_COLOUR: dict[str, str] = {"cube": "blue", "ball": "red", "cone": "orange", "ring": "yellow"}
FAVOURITE_SHARE = 0.6

#: (b) P(place) of a scene named without a place.
UNNAMED_PLACE: dict[str, float] = {"meadow": 0.55, "beach": 0.20, "snow": 0.05, "night": 0.05, "room": 0.15}

#: (c) Share of training captions in Spanish. There are none in German, and the held-out captions are English
#: only.
SPANISH_SHARE = 0.04

#: (d) What never occurs, in training or held out: (colour, shape) of any object, (colour, shape) on top of
#: another (colour, shape), and (number, colour, shape) of a counted group.
NEVER_OBJECTS: frozenset[tuple[str, str]] = frozenset({("purple", "ring"), ("cyan", "cone")})
NEVER_STACKS: frozenset[tuple[tuple[str, str], tuple[str, str]]] = frozenset(
    {
        (("red", "cube"), ("blue", "ball")),
        (("green", "cone"), ("yellow", "cube")),
        (("pink", "ball"), ("orange", "ring")),
    }
)
NEVER_COUNTS: frozenset[tuple[int, str, str]] = frozenset({(3, "pink", "ball"), (2, "green", "ring")})

# --- how often each kind of scene occurs, and what its caption mentions -------------------------------------

KIND_SHARE: dict[Kind, float] = {"single": 0.40, "pair": 0.30, "trio": 0.14, "count": 0.16}
#: Share of scenes in which every object's colour is mentioned; otherwise one object's is not.
NAMES_COLOUR = 0.80
#: Share of objects whose size is mentioned; unmentioned sizes are uniform, nothing is planted there.
NAMES_SIZE = 0.50
NAMES_PLACE = 0.65
NAMES_RELATION = 0.85

TRAIN_SEED = 1
HELD_OUT_SEED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object (or each of ``Scene.count`` equal ones) and what the caption says about it."""

    shape: str
    colour: str
    size: str
    names_colour: bool = True
    names_size: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is in a picture and what is said about it.

    ``pair``: items[0] is ``relation`` items[1]. ``trio``: items[0] is on top of items[1], and items[2] stands
    ``relation`` (left of or right of) that stack. ``count``: ``count`` copies of items[0] in a row.
    ``layout`` holds four numbers in [0, 1) that place the objects within the room their arrangement leaves.
    """

    kind: Kind
    items: tuple[Item, ...]
    place: str
    names_place: bool = True
    relation: Relation | None = None
    names_relation: bool = True
    count: int = 1
    layout: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.5)


def unnamed_colour(shape: str) -> dict[str, float]:
    """P(colour) of a ``shape`` named without a colour; combinations that never occur have probability 0."""
    favourite = FAVOURITE_COLOUR[shape]
    others = [c for c in COLOURS if c != favourite and (c, shape) not in NEVER_OBJECTS]
    shares = {colour: (1 - FAVOURITE_SHARE) / len(others) for colour in others}
    return {c: FAVOURITE_SHARE if c == favourite else shares.get(c, 0.0) for c in COLOURS}


def stack_of(scene: Scene) -> tuple[Item, Item] | None:
    """The (upper, lower) objects of a scene that stacks one on another, else None."""
    if scene.kind == "trio" or (scene.kind == "pair" and scene.relation == "on top of"):
        return scene.items[0], scene.items[1]
    if scene.kind == "pair" and scene.relation == "below":
        return scene.items[1], scene.items[0]
    return None


def never_occurs(scene: Scene) -> bool:
    """Whether the scene holds one of the combinations that are kept out of the world."""
    if any((item.colour, item.shape) in NEVER_OBJECTS for item in scene.items):
        return True
    stack = stack_of(scene)
    if stack and tuple((item.colour, item.shape) for item in stack) in NEVER_STACKS:
        return True
    return (
        scene.kind == "count" and (scene.count, scene.items[0].colour, scene.items[0].shape) in NEVER_COUNTS
    )


def draw_scene(seed: int, index: int) -> Scene:
    """Scene number ``index`` of the world with this ``seed``: the same arguments, the same scene."""
    rng = np.random.default_rng([seed, index])
    kind = _pick(rng, KIND_SHARE)
    number = {"single": 1, "pair": 2, "trio": 3, "count": 1}[kind]
    uncoloured = int(rng.integers(number)) if rng.random() >= NAMES_COLOUR else None
    scene = Scene(
        kind=kind,
        items=_draw_items(rng, number, uncoloured),
        place="",
        relation=_draw_relation(rng, kind),
        names_relation=kind in ("single", "count") or bool(rng.random() < NAMES_RELATION),
        count=int(rng.integers(2, 4)) if kind == "count" else 1,
        layout=_layout(rng),
    )
    scene = _draw_place(rng, scene)
    if kind == "count" and never_occurs(scene):  # the other number: redrawing the colour would bend its skew
        scene = replace(scene, count=5 - scene.count)
    while never_occurs(scene):
        scene = replace(scene, items=_draw_items(rng, number, uncoloured, keep=scene.items))
    return _only_small_threes(scene)


def _draw_items(
    rng: np.random.Generator, number: int, uncoloured: int | None, keep: tuple[Item, ...] = ()
) -> tuple[Item, ...]:
    """``number`` objects of different colours; object ``uncoloured`` is drawn first, from the skewed ones.

    With ``keep``, only the mentioned colours and the shapes of their objects are drawn afresh.
    """
    items: dict[int, Item] = {}
    for i in sorted(range(number), key=lambda i: i != uncoloured):
        if keep and i == uncoloured:
            items[i] = keep[i]
            continue
        shape = SHAPES[rng.integers(len(SHAPES))]
        taken = {item.colour for item in items.values()}
        free = {c: 1.0 for c in COLOURS if c not in taken and (c, shape) not in NEVER_OBJECTS}
        items[i] = Item(
            shape=shape,
            colour=_pick(rng, unnamed_colour(shape) if i == uncoloured else free),
            size=str(rng.choice(list(SIZES))),
            names_colour=i != uncoloured,
            names_size=bool(rng.random() < NAMES_SIZE),
        )
    return tuple(items[i] for i in range(number))


def _draw_relation(rng: np.random.Generator, kind: Kind) -> Relation | None:
    choices = {"pair": RELATIONS, "trio": RELATIONS[:2]}.get(kind, ())
    return choices[rng.integers(len(choices))] if choices else None


def _draw_place(rng: np.random.Generator, scene: Scene) -> Scene:
    names_place = bool(rng.random() < NAMES_PLACE)
    place = _pick(rng, dict.fromkeys(PLACES, 1.0) if names_place else UNNAMED_PLACE)
    return replace(scene, place=place, names_place=names_place)


def _only_small_threes(scene: Scene) -> Scene:
    """Three large objects do not fit side by side without touching: threes are always small."""
    if scene.kind != "count" or scene.count < 3:
        return scene
    return replace(scene, items=(replace(scene.items[0], size="small"),))


def _layout(rng: np.random.Generator) -> tuple[float, float, float, float]:
    a, b, c, d = (float(v) for v in rng.random(4))
    return a, b, c, d


def _pick(rng: np.random.Generator, shares: dict[_Name, float]) -> _Name:
    names = list(shares)
    weights = np.array([shares[name] for name in names])
    return names[int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))]
