"""What people would write under a scene: COCO-like English, and Spanish and German translations.

Every wording of a scene mentions the same attributes: exactly those its ``names_*`` flags announce. Spanish
occurs in a small share of the training captions, German never: a probe of the card's "other languages"
sentence must find that.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from sd2eval.mini import german, spanish
from sd2eval.mini.world import HELD_OUT_SEED, OPPOSITE, SPANISH_SHARE, Item, Scene

Language = Literal["en", "es", "de"]
CAPTIONS_PER_SCENE = 5
_TRIES = 500

NOUNS: dict[str, tuple[str, ...]] = {
    "cube": ("cube", "cube", "cube", "block"),
    "ball": ("ball", "ball", "ball", "sphere"),
    "cone": ("cone",),
    "ring": ("ring", "ring", "ring", "hoop"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little"),
    "large": ("large", "large", "big"),
}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "in the meadow", "on the grass", "in a grassy field"),
    "beach": ("on the beach", "at the beach", "on a sandy beach", "on the sand"),
    "snow": ("in the snow", "on the snow", "on snowy ground", "in a snowy field"),
    "night": ("at night", "in the dark", "on a dark night", "in the dark of night"),
    "room": ("in a room", "indoors", "on the floor of a room", "inside a room"),
}
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left side of"),
    "right of": ("to the right of", "right of", "on the right side of"),
    "on top of": ("on top of", "on top of", "stacked on", "sitting on"),
    "below": ("below", "under", "underneath"),
}
NUMBERS: dict[int, tuple[str, ...]] = {
    2: ("two", "two", "a pair of", "a couple of"),
    3: ("three", "three", "a row of three"),
}
OPENINGS = ("", "", "", "", "a picture of ", "a photo of ", "there is ", "a view of ", "an image of ")


def write_captions(scene: Scene, seed: int, index: int) -> list[str]:
    """The scene's five English captions; a pure function of its arguments."""
    rng = np.random.default_rng([seed, index, 1])
    captions: list[str] = []
    for _ in range(_TRIES):
        wording = english(scene, rng)
        if wording not in captions:
            captions.append(wording)
        if len(captions) == CAPTIONS_PER_SCENE:
            return captions
    raise ValueError(f"no {CAPTIONS_PER_SCENE} wordings for {scene}")


def training_caption(scene: Scene, seed: int, index: int, variant: int) -> str:
    """One wording of a training scene: Spanish in a share ``SPANISH_SHARE`` of all cases, else English."""
    if seed == HELD_OUT_SEED:
        raise ValueError(f"seed {seed} belongs to the held-out scenes")
    rng = np.random.default_rng([seed, index, 2, variant])
    return translate(scene, "es") if rng.random() < SPANISH_SHARE else english(scene, rng)


def translate(scene: Scene, language: Language) -> str:
    """The scene in one fixed wording of ``language``, mentioning the same attributes in each."""
    if language == "en":
        return english(scene, None)
    return spanish.caption(scene) if language == "es" else german.caption(scene)


def english(scene: Scene, rng: np.random.Generator | None) -> str:
    """One English caption; without ``rng`` always the first wording of each phrase."""
    opening = _choose(OPENINGS, rng)
    if opening == "there is " and scene.kind == "count":
        opening = "there are "
    body = opening + _subject(scene, rng)
    if scene.names_place:
        body += " " + _choose(PLACE_PHRASES[scene.place], rng)
    sentence = body[0].upper() + body[1:]
    return sentence + _choose((".", ".", ""), rng)


def _subject(scene: Scene, rng: np.random.Generator | None) -> str:
    if scene.kind == "count":
        return f"{_choose(NUMBERS[scene.count], rng)} {_noun_phrase(scene.items[0], rng, plural=True)}"
    phrases = [_with_article(_noun_phrase(item, rng)) for item in scene.items]
    if scene.kind == "single":
        return phrases[0]
    if scene.kind == "pair":
        return _pair(scene, phrases, rng)
    if not scene.names_relation or scene.relation is None:
        return f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    stack = f"{phrases[0]} {_choose(RELATION_PHRASES['on top of'], rng)} {phrases[1]}"
    if scene.relation == "left of":
        return f"{phrases[2]} {_choose(RELATION_PHRASES['left of'], rng)} {stack}"
    return f"{stack}, with {phrases[2]} {_choose(('to the right', 'on the right'), rng)}"


def _pair(scene: Scene, phrases: list[str], rng: np.random.Generator | None) -> str:
    """Half of the wordings name the second object first, with the opposite relation."""
    first, second = phrases
    relation = scene.relation
    assert relation is not None
    if rng is not None and rng.random() < 0.3:
        first, second, relation = second, first, OPPOSITE[relation]
    if not scene.names_relation:
        return f"{first} {_choose(('and', 'and', 'with'), rng)} {second}"
    return f"{first} {_choose(RELATION_PHRASES[relation], rng)} {second}"


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _noun_phrase(item: Item, rng: np.random.Generator | None, plural: bool = False) -> str:
    words = [_choose(SIZE_WORDS[item.size], rng)] if item.names_size else []
    words += [item.colour] if item.names_colour else []
    return " ".join([*words, _choose(NOUNS[item.shape], rng) + ("s" if plural else "")])


def _choose(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]
