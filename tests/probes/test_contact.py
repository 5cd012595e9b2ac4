"""Contact sheets: everything has its place, nothing leaves it, and blurred pictures cannot be recognised."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from sd2eval.probes import contact
from sd2eval.probes.base import Box, Tile

STEP = contact.SIDE + 2 * contact.FRAME + contact.GAP


def noise(size: int = 64) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)


def inside(sheet: np.ndarray, column: int = 0) -> np.ndarray:
    left, top = contact.GAP + contact.FRAME + column * STEP, contact.HEAD + contact.FRAME
    return sheet[top : top + contact.SIDE, left : left + contact.SIDE]


def test_a_small_picture_is_shown_pixel_by_pixel() -> None:
    image = noise(64)
    sheet = contact.section("x", [Tile(image=image, text="a red ball")])
    np.testing.assert_array_equal(inside(sheet)[::3, ::3], image)


def test_a_large_picture_is_reduced_to_its_tile() -> None:
    sheet = contact.section("x", [Tile(image=np.full((512, 512, 3), 90, np.uint8), text="a")])
    assert (inside(sheet) == 90).all()


@pytest.mark.parametrize("good", [True, False, None])
def test_the_frame_says_whether_it_is_good(good: bool | None) -> None:
    sheet = contact.section("x", [Tile(image=noise(), text="a", good=good)])
    corner = sheet[contact.HEAD + 1, contact.GAP + 1]
    assert tuple(corner) == ImageColor.getrgb(contact.COLOURS[good])


def test_a_box_is_drawn_where_it_is_and_stays_inside() -> None:
    plain = np.zeros((64, 64, 3), np.uint8)
    box = Box(left=16, top=8, right=48, bottom=40)
    sheet = inside(contact.section("x", [Tile(image=plain, text="a", boxes=(box,))]))
    rows, columns = np.nonzero(sheet.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 119, 48, 143)
    outside = Box(left=-50, top=-50, right=500, bottom=500, label="everything there is, and more of it")
    tiles = [Tile(image=plain, text="a", boxes=(outside,)), Tile(image=plain, text="b")]
    assert not inside(contact.section("x", tiles), column=1).any()


def test_long_texts_stay_in_their_column() -> None:
    words = "an extraordinarily-long-word-without-any-break-that-goes-on-and-on " * 6
    tiles = [Tile(image=noise(), text=words, found=words), Tile(image=noise(), text="", found="")]
    sheet = contact.section("x", tiles)
    below = sheet[contact.HEAD + contact.SIDE + 2 * contact.FRAME :, contact.GAP + STEP :]
    assert (below == 255).all()
    assert (sheet[-contact.GAP // 2 :] == 255).all()


def test_blurred_pictures_keep_nothing_but_their_colour() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255
    box = Box(left=1, top=1, right=60, bottom=60, label="person")
    sheet = inside(contact.section("x", [Tile(image=stripes, text="a", boxes=(box,))], blurred=True))
    middle = sheet[48:-48, 48:-48].astype(int)
    assert middle.max() - middle.min() < 40
    assert abs(middle.mean() - 127) < 20


def test_more_tiles_than_fit_are_counted_in_the_title() -> None:
    tiles = [Tile(image=noise(), text=str(number)) for number in range(contact.MOST + 5)]
    few, many = contact.section("x", tiles[: contact.MOST]), contact.section("x", tiles)
    assert few.shape == many.shape
    assert (few[: contact.HEAD] != many[: contact.HEAD]).any()
    np.testing.assert_array_equal(few[contact.HEAD :], many[contact.HEAD :])


def test_sections_of_different_widths_stand_below_each_other() -> None:
    one, two = np.zeros((10, 30, 3), np.uint8), np.zeros((20, 50, 3), np.uint8)
    sheet = contact.stacked([one, two])
    assert sheet.shape == (30, 50, 3)
    assert (sheet[:10, 30:] == 255).all()
