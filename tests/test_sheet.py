from __future__ import annotations

import numpy as np

from sd2eval.sheet import GAP, HEAD, TEXT_WIDTH, contact_sheet


def test_every_image_stands_in_the_row_of_its_caption_and_the_column_of_its_scale() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 64, 64, 3), dtype=np.uint8)
    sheet = contact_sheet(images, ["one", "two", "a very long caption " * 20], [1.5, 3.0], "512-base")
    step = 128 + GAP
    assert sheet.shape == (HEAD + 3 * step, TEXT_WIDTH + 2 * step, 3)
    for row in range(3):
        for column in range(2):
            top, left = HEAD + row * step, TEXT_WIDTH + column * step
            np.testing.assert_array_equal(
                sheet[top : top + 128 : 2, left : left + 128 : 2], images[row, column]
            )


def test_large_images_keep_their_size_and_labels_are_written() -> None:
    images = np.zeros((1, 1, 200, 200, 3), dtype=np.uint8)
    sheet = contact_sheet(images, ["a caption"], [3.0], "x4")
    assert sheet.shape == (HEAD + 204, TEXT_WIDTH + 204, 3)
    assert (sheet[:HEAD, TEXT_WIDTH:] < 128).any()
    assert (sheet[HEAD:, :TEXT_WIDTH] < 128).any()
