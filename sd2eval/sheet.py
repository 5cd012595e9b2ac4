"""Contact sheets: captions down, guidance scales across, so that what guidance does is seen at a glance."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
FONT_SIZE = 12
TEXT_WIDTH = 190
LINE_CHARACTERS = 27
GAP = 4
HEAD = 24
SMALLEST_TILE = 128
"""Smaller images are enlarged by whole factors, without smoothing: a pixel stays a pixel."""


def contact_sheet(
    images: NDArray[np.uint8], texts: Sequence[str], scales: Sequence[float], title: str
) -> NDArray[np.uint8]:
    """Draw a labelled sheet.

    Args:
        images: uint8 [captions, scales, R, R, 3].
        texts: one caption per row.
        scales: one guidance scale per column.
        title: stands in the corner.

    Returns:
        uint8 [H, W, 3].
    """
    factor = -(-SMALLEST_TILE // images.shape[2])
    tiles = images.repeat(factor, axis=2).repeat(factor, axis=3)
    step = tiles.shape[2] + GAP
    size = (TEXT_WIDTH + step * len(scales), HEAD + step * len(texts))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(str(FONT), FONT_SIZE)
    draw.text((GAP, HEAD / 2), title, "black", font, anchor="lm")
    for column, scale in enumerate(scales):
        left = TEXT_WIDTH + column * step
        draw.text((left + step / 2, HEAD / 2), f"scale {scale:g}", "black", font, anchor="mm")
        for row in range(len(texts)):
            sheet.paste(Image.fromarray(tiles[row, column]), (left, HEAD + row * step))
    for row, text in enumerate(texts):
        lines = textwrap.wrap(text, LINE_CHARACTERS, max_lines=7, placeholder=" ...")
        middle = HEAD + row * step + (step - GAP) / 2
        draw.multiline_text((GAP, middle), "\n".join(lines), "black", font, anchor="lm", spacing=3)
    return np.asarray(sheet)
