"""The detector is right on rendered scenes, sharp and soft, before it judges generated ones."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from sd2eval.mini.detector import detect, detect_place, relation_between, shows_object
from sd2eval.mini.render import background, render
from sd2eval.mini.world import COLOURS, SHAPES, SIZES, Item, Scene, draw_scene

#: Scenes of a seed that neither training nor the data set uses.
SCENES = [draw_scene(5, index) for index in range(1_200)]


def wanted(scene: Scene) -> Counter[tuple[str, str]]:
    return Counter((item.shape, item.colour) for item in scene.items for _ in range(scene.count))


def found(image: NDArray[np.uint8]) -> Counter[tuple[str, str]]:
    return Counter((one.shape, one.colour) for one in detect(image))


@pytest.mark.parametrize("kind", ["single", "pair", "trio", "count"])
def test_rendered_objects_are_found(kind: str) -> None:
    scenes = [scene for scene in SCENES if scene.kind == kind]
    right = [found(render(scene)[0]) == wanted(scene) for scene in scenes]
    assert len(right) > 150
    assert np.mean(right) >= 0.99


def test_soft_and_noisy_pictures_are_still_recognised() -> None:
    scenes = [scene for scene in SCENES if scene.kind == "single"][:300]
    rng = np.random.default_rng(0)
    right = []
    for scene in scenes:
        soft = ndimage.gaussian_filter(render(scene)[0].astype(float), (0.7, 0.7, 0)) + rng.normal(
            0, 5, (64, 64, 3)
        )
        right.append(found(np.clip(np.rint(soft), 0, 255).astype(np.uint8)) == wanted(scene))
    assert np.mean(right) >= 0.95


def test_every_shape_colour_and_size_is_found_on_a_plain_ground() -> None:
    for shape in SHAPES:
        for colour in COLOURS:
            for size in SIZES:
                item = Item(shape=shape, colour=colour, size=size)
                scene = Scene(kind="single", items=(item,), place="snow")
                (one,) = detect(render(scene)[0])
                assert (one.shape, one.colour, one.size) == (shape, colour, size)
                assert shows_object(render(scene)[0], scene)


def test_empty_places_hold_nothing_and_are_named() -> None:
    for place in ("meadow", "beach", "snow", "night", "room"):
        image = np.rint(background(place)[0] * 255).astype(np.uint8)
        assert detect(image) == []
        assert detect_place(image) == place


def test_places_are_named_behind_objects() -> None:
    assert np.mean([detect_place(render(scene)[0]) == scene.place for scene in SCENES[:200]]) >= 0.99


def test_relations_are_read_off() -> None:
    right = []
    for scene in (scene for scene in SCENES if scene.kind == "pair"):
        by_colour = {one.colour: one for one in detect(render(scene)[0])}
        first, second = (by_colour.get(item.colour) for item in scene.items)
        right.append(
            first is not None and second is not None and relation_between(first, second) == scene.relation
        )
    assert np.mean(right) >= 0.99


def test_a_named_colour_must_match_and_an_unnamed_one_need_not() -> None:
    item = Item(shape="ball", colour="red", size="large")
    image, _ = render(
        Scene(kind="single", items=(Item(shape="ball", colour="blue", size="large"),), place="room")
    )
    assert not shows_object(image, Scene(kind="single", items=(item,), place="room"))
    unnamed = Item(shape="ball", colour="red", size="large", names_colour=False)
    assert shows_object(image, Scene(kind="single", items=(unnamed,), place="room"))
