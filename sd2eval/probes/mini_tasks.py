"""Sentences of the mini world for each task of the composition probe, and scenes that fulfil them or not.

Combinations that no training caption ever held (`world.NEVER_*`) are asked for as well, beside as many that
occur: the difference is what the model makes of parts that it knows in an order that it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sd2eval.mini.captions import NOUNS
from sd2eval.mini.render import render
from sd2eval.mini.world import (
    COLOURS,
    NEVER_COUNTS,
    NEVER_OBJECTS,
    NEVER_STACKS,
    PLACES,
    SHAPES,
    SIZES,
    Item,
    Relation,
    Scene,
)
from sd2eval.probes.base import ProbePrompt
from sd2eval.probes.composing import STACK, TASKS

Labels = dict[str, str]
CARD = "a red cube on top of a blue sphere"
"""The card's own sentence; the world calls a sphere a ball."""
WORDS = {"left of": "to the left of", "right of": "to the right of", "above": "on top of", "below": "below"}
IN_WORLD: dict[str, Relation] = {
    "left of": "left of",
    "right of": "right of",
    "above": "on top of",
    "below": "below",
}
NUMBERS = {1: "a", 2: "two", 3: "three"}
IN_PLACE = {
    "": "",
    "meadow": " in a meadow",
    "beach": " on the beach",
    "snow": " in the snow",
    "night": " at night",
    "room": " in a room",
}
SEED = 6


def sentences(n: int, rare: int, card: int) -> list[ProbePrompt]:
    """Return the prompts: `n` of each of GenEval's tasks, `rare` of each combination that never occurs.

    Args:
        n: of each task, spread evenly over shapes, colours and relations.
        rare: of each combination that training never held, and as many in all of comparable ones that it did.
        card: times that the card's own sentence is drawn.
    """
    asked = [labels for task in TASKS for labels in _some(list(_TASKS[task]()), n)]
    asked += [labels for labels in _never() for _ in range(rare)]
    never = {kind: sum(labels["part"] == f"{kind}, never seen" for labels in _never()) for kind in _SEEN}
    for kind, count in never.items():
        asked += _some(list(_SEEN[kind]()), count * rare)
    asked += [_pair(STACK, ("red", "cube"), ("blue", "ball"), "above", part="card") for _ in range(card)]
    return [_prompt(key, labels) for key, labels in enumerate(asked)]


def scene_of(labels: Mapping[str, str], rng: np.random.Generator) -> Scene:
    """Return a scene that fulfils what labels ask for; what they leave open is drawn."""
    colours = list(rng.permutation([one for one in COLOURS if one not in _colours(labels)]))
    first = _item(labels["first"], labels.get("first_colour") or colours.pop(), rng)
    scene = Scene(
        kind="single",
        items=(first,),
        place=labels.get("place") or str(rng.choice(PLACES)),
        layout=(rng.random(), rng.random(), rng.random(), rng.random()),
    )
    if labels.get("second"):
        second = _item(labels["second"], labels.get("second_colour") or colours.pop(), rng)
        relation = IN_WORLD[labels.get("relation") or str(rng.choice(list(IN_WORLD)))]
        return replace(scene, kind="pair", items=(first, second), relation=relation)
    count = int(labels.get("count", "1"))
    if count == 1:
        return scene
    return replace(scene, kind="count", items=(replace(first, size="small"),), count=count)


def spoiled(labels: Mapping[str, str], rng: np.random.Generator) -> Labels:
    """Return labels that ask for something else: one attribute that matters to the task is another one."""
    other = dict(labels)
    task = labels["task"]
    if task in ("colors", "color_attr", STACK) and (task != STACK or rng.random() < 0.5):
        key = str(rng.choice([key for key in ("first_colour", "second_colour") if labels.get(key)]))
        other[key] = str(rng.choice([one for one in COLOURS if one not in _colours(labels)]))
    elif labels.get("relation"):
        other["relation"] = str(rng.choice([one for one in IN_WORLD if one != labels["relation"]]))
    elif task == "counting":
        other["count"] = str(rng.choice([one for one in ("1", "2", "3") if one != labels["count"]]))
    else:
        taken = {labels["first"], labels.get("second", "")}
        key = "second" if labels.get("second") and rng.random() < 0.5 else "first"
        other[key] = str(rng.choice([one for one in SHAPES if one not in taken]))
    return other


def picture(labels: Mapping[str, str], rng: np.random.Generator, resolution: int) -> NDArray[np.uint8]:
    """Return a rendered scene that fulfils labels, uint8 [R, R, 3]."""
    return render(scene_of(labels, rng), resolution)[0]


def _prompt(key: int, labels: Labels) -> ProbePrompt:
    text = CARD if labels["part"] == "card" else _text(labels)
    return ProbePrompt(key=key, text=f"{text[0].upper()}{text[1:]}.", labels=labels, group=key)


def _text(labels: Labels) -> str:
    count = int(labels.get("count", "1"))
    first = " ".join(filter(None, (labels.get("first_colour"), NOUNS[labels["first"]][0])))
    first = _article(first) if count == 1 else f"{NUMBERS[count]} {first}s"
    place = IN_PLACE[labels.get("place", "")]
    if not labels.get("second"):
        return first + place
    second = " ".join(filter(None, (labels.get("second_colour"), NOUNS[labels["second"]][0])))
    joint = WORDS[labels["relation"]] if labels.get("relation") else "and"
    return f"{first} {joint} {_article(second)}{place}"


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _item(shape: str, colour: str, rng: np.random.Generator) -> Item:
    return Item(shape=shape, colour=colour, size=str(rng.choice(list(SIZES))))


def _colours(labels: Mapping[str, str]) -> set[str]:
    return {labels.get("first_colour", ""), labels.get("second_colour", "")}


def _some(labels: list[Labels], n: int) -> list[Labels]:
    """Return n of them in an order that does not depend on n, again from the start where there are fewer."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    return [labels[order[i % len(labels)]] for i in range(n)]


# --- what each task asks for --------------------------------------------------------------------------------


def _one(task: str, shape: str, *, part: str = "", **more: str) -> Labels:
    return {"task": task, "part": part or task, "first": shape} | {
        key: one for key, one in more.items() if one
    }


def _pair(
    task: str, first: tuple[str, str], second: tuple[str, str], relation: str = "", part: str = ""
) -> Labels:
    (colour, shape), (other_colour, other) = first, second
    more = {"first_colour": colour, "second": other, "second_colour": other_colour, "relation": relation}
    return _one(task, shape, part=part, **more)


def _single() -> Iterator[Labels]:
    return (_one("single_object", shape, place=place) for shape, place in product(SHAPES, IN_PLACE))


def _two() -> Iterator[Labels]:
    pairs = (pair for pair in product(SHAPES, SHAPES) if pair[0] != pair[1])
    return (_pair("two_object", ("", a), ("", b)) | _placed(p) for (a, b), p in product(pairs, IN_PLACE))


def _counting() -> Iterator[Labels]:
    return (
        _one("counting", shape, count=count, place=place)
        for shape, count, place in product(SHAPES, ("2", "3"), IN_PLACE)
    )


def _coloured() -> Iterator[Labels]:
    occurring = (pair for pair in product(COLOURS, SHAPES) if pair not in NEVER_OBJECTS)
    return (_one("colors", shape, first_colour=colour) for colour, shape in occurring)


def _positions() -> Iterator[Labels]:
    pairs = (pair for pair in product(SHAPES, SHAPES) if pair[0] != pair[1])
    return (_pair("position", ("", a), ("", b), relation) for (a, b), relation in product(pairs, IN_WORLD))


def _attributes() -> Iterator[Labels]:
    return (_pair("color_attr", first, second) for first, second in _pairs())


def _stacks() -> Iterator[Labels]:
    for first, second in _pairs():
        if (first, second) not in NEVER_STACKS:
            yield _pair(STACK, first, second, "above", part="stack, seen")


def _counts() -> Iterator[Labels]:
    for colour, shape, count in product(COLOURS, SHAPES, ("2", "3")):
        if (colour, shape) not in NEVER_OBJECTS and (int(count), colour, shape) not in NEVER_COUNTS:
            yield _one("counting", shape, part="counting, seen", count=count, first_colour=colour)


def _pairs() -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yield pairs of coloured shapes that occur, of different colours and shapes."""
    objects = [pair for pair in product(COLOURS, SHAPES) if pair not in NEVER_OBJECTS]
    for first, second in product(objects, objects):
        if first[0] != second[0] and first[1] != second[1]:
            yield first, second


def _never() -> list[Labels]:
    """Return every combination that never occurs, once."""
    objects = [
        _one("colors", shape, part="colors, never seen", first_colour=colour)
        for colour, shape in sorted(NEVER_OBJECTS)
    ]
    stacks = [
        _pair(STACK, upper, lower, "above", part="stack, never seen") for upper, lower in sorted(NEVER_STACKS)
    ]
    counts = [
        _one("counting", shape, part="counting, never seen", count=str(count), first_colour=colour)
        for count, colour, shape in sorted(NEVER_COUNTS)
    ]
    return [*objects, *stacks, *counts]


def _placed(place: str) -> Labels:
    return {"place": place} if place else {}


_TASKS: dict[str, Callable[[], Iterator[Labels]]] = {
    "single_object": _single,
    "two_object": _two,
    "counting": _counting,
    "colors": _coloured,
    "position": _positions,
    "color_attr": _attributes,
}
_SEEN: dict[str, Callable[[], Iterator[Labels]]] = {"stack": _stacks, "counting": _counts}
