"""Pictures, depth and masks of scenes."""

import numpy as np
import pytest

from sd2eval.mini.render import background, place_objects, render, silhouettes
from sd2eval.mini.world import COLOURS, PLACES, SHAPES, Item, Scene, draw_scene

SCENES = [draw_scene(9, index) for index in range(300)]


def test_rendering_is_deterministic() -> None:
    first, second = render(SCENES[0]), render(draw_scene(9, 0))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert first[0].dtype == np.uint8
    assert first[1].dtype == np.float32


def test_objects_stay_inside_and_apart() -> None:
    for scene in SCENES:
        masks = silhouettes(scene)
        assert masks.sum(axis=0).max() == 1
        for placed in place_objects(scene):
            assert placed.r <= placed.x <= 1 - placed.r
            assert placed.r <= placed.y <= 1 - placed.r


def test_relations_hold_in_the_picture() -> None:
    for scene in SCENES:
        if scene.kind != "pair":
            continue
        first, second = place_objects(scene)
        offset = {
            "left of": second.x - first.x,
            "right of": first.x - second.x,
            "on top of": second.y - first.y,
            "below": first.y - second.y,
        }
        assert scene.relation is not None
        assert offset[scene.relation] > 0.15


def test_counted_objects_are_counted() -> None:
    for scene in SCENES:
        expected = scene.count if scene.kind == "count" else len(scene.items)
        assert len(silhouettes(scene)) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_shading_keeps_the_hue(shape: str) -> None:
    scene = Scene(kind="single", items=(Item(shape=shape, colour="orange", size="large"),), place="night")
    image, _ = render(scene, 96)
    inside = silhouettes(scene, 96)[0]
    solid = image[inside & (image.max(axis=-1) > 150)] / 255.0
    r, g, b = COLOURS["orange"]
    assert len(solid) > 300
    # Only the blue channel may differ by rounding and by the edge's share of background.
    ratio = (solid[:, 1] - solid[:, 2]) / (solid[:, 0] - solid[:, 2])
    assert np.median(np.abs(ratio - (g - b) / (r - b))) < 0.01


def test_backgrounds_are_low_in_chroma() -> None:
    for place in PLACES:
        colours, _ = background(place)
        assert (colours.max(axis=-1) - colours.min(axis=-1)).max() < 0.2


def test_depth_is_larger_where_nearer() -> None:
    for scene in SCENES[:50]:
        _, depth = render(scene)
        assert depth[0, 0] == 0.0
        assert depth[-1, 0] > 0.5
        mask = silhouettes(scene).any(axis=0)
        assert depth[mask].mean() > background(scene.place)[1][mask].mean()


def test_larger_resolution_shows_the_same_scene() -> None:
    for scene in SCENES[:20]:
        small, _ = render(scene, 64)
        large, _ = render(scene, 128)
        shrunk = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(shrunk - small).mean() < 2.0
