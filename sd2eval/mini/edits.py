"""Scenes that differ from another in one mentioned attribute: hard negatives for contrastive training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sd2eval.mini.world import COLOURS, OPPOSITE, PLACES, SHAPES, SIZES, Item, Scene, never_occurs

_Edit = Callable[[Scene, np.random.Generator], Scene | None]


def edit_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """A neighbour of ``scene``: one attribute changed, and mentioned. What never occurs stays out."""
    while True:
        edit = _EDITS[int(rng.integers(len(_EDITS)))]
        changed = edit(scene, rng)
        if changed is not None and not never_occurs(changed):
            return changed


def _colour(scene: Scene, rng: np.random.Generator) -> Scene | None:
    taken = {item.colour for item in scene.items}
    colour = _other(tuple(c for c in COLOURS if c not in taken), "", rng)
    return _with_item(scene, rng, lambda item: replace(item, colour=colour, names_colour=True))


def _shape(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _with_item(scene, rng, lambda item: replace(item, shape=_other(SHAPES, item.shape, rng)))


def _size(scene: Scene, rng: np.random.Generator) -> Scene | None:
    if scene.count == 3:
        return None
    return _with_item(
        scene, rng, lambda item: replace(item, size=_other(tuple(SIZES), item.size, rng), names_size=True)
    )


def _place(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return replace(scene, place=_other(PLACES, scene.place, rng), names_place=True)


def _relation(scene: Scene, rng: np.random.Generator) -> Scene | None:
    if scene.relation is None:
        return None
    return replace(scene, relation=OPPOSITE[scene.relation], names_relation=True)


def _swap(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """The first two objects change places."""
    if scene.kind not in ("pair", "trio"):
        return None
    return replace(scene, items=(scene.items[1], scene.items[0], *scene.items[2:]), names_relation=True)


def _count(scene: Scene, rng: np.random.Generator) -> Scene | None:
    if scene.kind != "count" or scene.items[0].size != "small":
        return None
    return replace(scene, count=5 - scene.count)


_EDITS: tuple[_Edit, ...] = (
    _colour,
    _shape,
    _size,
    _size,
    _place,
    _relation,
    _relation,
    _swap,
    _count,
    _count,
)


def _with_item(scene: Scene, rng: np.random.Generator, change: Callable[[Item], Item]) -> Scene:
    which = int(rng.integers(len(scene.items)))
    return replace(
        scene, items=tuple(change(item) if i == which else item for i, item in enumerate(scene.items))
    )


def _other(options: tuple[str, ...], current: str, rng: np.random.Generator) -> str:
    rest = [option for option in options if option != current]
    return rest[int(rng.integers(len(rest)))]
