"""The planted truths are where the constants say they are."""

from collections import Counter

import numpy as np
import pytest

from sd2eval.mini import world
from sd2eval.mini.edits import edit_scene
from sd2eval.mini.world import Item, Scene, draw_scene

N = 12_000


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(world.TRAIN_SEED, index) for index in range(N)]


def close(observed: int, n: int, share: float) -> bool:
    """Within four binomial standard errors."""
    return abs(observed - n * share) <= 4 * np.sqrt(n * share * (1 - share)) + 1e-9


def test_scene_is_a_function_of_seed_and_index(scenes: list[Scene]) -> None:
    assert draw_scene(world.TRAIN_SEED, 77) == scenes[77]
    assert len({draw_scene(seed, 77) for seed in range(20)}) == 20
    assert len(set(scenes[:500])) == 500


@pytest.mark.parametrize("shape", world.SHAPES)
def test_unnamed_colours_are_skewed_as_planted(scenes: list[Scene], shape: str) -> None:
    unnamed = Counter(i.colour for s in scenes for i in s.items if i.shape == shape and not i.names_colour)
    n = sum(unnamed.values())
    assert n > 300
    for colour, share in world.unnamed_colour(shape).items():
        assert close(unnamed[colour], n, share), (colour, unnamed[colour] / n, share)


def test_named_colours_of_single_objects_are_uniform(scenes: list[Scene]) -> None:
    named = Counter(
        s.items[0].colour
        for s in scenes
        if s.kind == "single" and s.items[0].shape == "ball" and s.items[0].names_colour
    )
    assert all(close(named[colour], sum(named.values()), 1 / 8) for colour in world.COLOURS)


def test_unnamed_places_are_skewed_and_named_ones_uniform(scenes: list[Scene]) -> None:
    unnamed = Counter(s.place for s in scenes if not s.names_place)
    named = Counter(s.place for s in scenes if s.names_place)
    for place, share in world.UNNAMED_PLACE.items():
        assert close(unnamed[place], sum(unnamed.values()), share)
        assert close(named[place], sum(named.values()), 1 / len(world.PLACES))


def test_kinds_and_mentions_have_their_shares(scenes: list[Scene]) -> None:
    kinds = Counter(s.kind for s in scenes)
    assert all(close(kinds[kind], N, share) for kind, share in world.KIND_SHARE.items())
    assert close(sum(all(i.names_colour for i in s.items) for s in scenes), N, world.NAMES_COLOUR)
    assert close(sum(s.names_place for s in scenes), N, world.NAMES_PLACE)


def test_what_never_occurs_does_not_occur(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    edited = [edit_scene(scene, rng) for scene in scenes[:3_000]]
    for scene in scenes + edited:
        assert not world.never_occurs(scene)
        assert all((i.colour, i.shape) not in world.NEVER_OBJECTS for i in scene.items)


def test_the_cards_sentence_is_recognised_in_both_directions() -> None:
    cube, ball = (
        Item(shape="cube", colour="red", size="large"),
        Item(shape="ball", colour="blue", size="small"),
    )
    above = Scene(kind="pair", items=(cube, ball), place="room", relation="on top of")
    below = Scene(kind="pair", items=(ball, cube), place="room", relation="below")
    reverse = Scene(kind="pair", items=(cube, ball), place="room", relation="below")
    assert world.never_occurs(above)
    assert world.never_occurs(below)
    assert not world.never_occurs(reverse)


def test_a_forbidden_count_is_avoided_without_bending_the_colours(scenes: list[Scene]) -> None:
    for number, colour, shape in world.NEVER_COUNTS:
        others = [
            s
            for s in scenes
            if s.kind == "count" and (s.items[0].colour, s.items[0].shape) == (colour, shape)
        ]
        assert others
        assert all(s.count != number for s in others)


def test_edits_change_one_thing_and_mention_it(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    for scene in scenes[:500]:
        other = edit_scene(scene, rng)
        assert other != scene
        assert other.kind == scene.kind
        changed = [(a, b) for a, b in zip(scene.items, other.items, strict=True) if a != b]
        assert len(changed) <= 2
        for a, b in changed:
            assert a.colour == b.colour or b.names_colour or {a, b} <= set(scene.items)
