"""Contact sheets of a probe: a section per checkpoint, tiles with what was asked and what was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from sd2eval.probes.base import Box, Tile
from sd2eval.sheet import FONT

Images = NDArray[np.uint8]

COLUMNS = 6
MOST = 24
"""Tiles of a section."""
SIDE = 192
"""Pixels of a tile: smaller pictures are enlarged by whole factors without smoothing, larger ones reduced."""
GAP = 10
HEAD = 30
FONT_SIZE, TITLE_SIZE, BOX_SIZE = 12, 16, 11
LINE = 15
PROMPT_LINES, FOUND_LINES = 3, 2
FRAME = 3
COLOURS = {True: "#2A7F3E", False: "#B3261E", None: "#8A8A8A"}
BOX_COLOUR = "#FF3DF2"
BLUR = 10
"""Divides a tile's side: the radius of the blur."""


def section(title: str, tiles: Sequence[Tile], *, blurred: bool = False) -> Images:
    """Draw up to `MOST` tiles under a title.

    Args:
        title: of the section.
        tiles: pictures of any size; the frame is green, red or grey as `good` is True, False or None.
        blurred: whether the pictures are made unrecognisable.

    Returns:
        uint8 [H, W, 3].
    """
    shown = list(tiles)[:MOST]
    rows = [_Row(shown[start : start + COLUMNS]) for start in range(0, len(shown), COLUMNS)]
    step = SIDE + 2 * FRAME + GAP
    height = HEAD + sum(row.height for row in rows)
    sheet = Image.new("RGB", (COLUMNS * step + GAP, height), "white")
    draw = ImageDraw.Draw(sheet)
    more = f"   (the first {len(shown)} of {len(tiles)})" if len(tiles) > len(shown) else ""
    hidden = "   (blurred; blur=false shows them)" if blurred else ""
    draw.text((GAP, HEAD / 2), f"{title}{more}{hidden}", "black", _font(TITLE_SIZE), anchor="lm")
    top = HEAD
    for row in rows:
        for column, tile in enumerate(row.tiles):
            _paste(sheet, draw, tile, (GAP + column * step, top), row.lines, blurred)
        top += row.height
    return np.asarray(sheet)


class _Row:
    """Tiles side by side, whose findings stand in one line, below the longest prompt."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self.tiles = tiles
        font = _font(FONT_SIZE)
        self.lines = max(len(_broken(tile.text, PROMPT_LINES, font)) for tile in tiles)
        found = max(len(_broken(tile.found, FOUND_LINES, font)) for tile in tiles)
        self.height = SIDE + 2 * FRAME + (self.lines + found) * LINE + 2 * GAP


def stacked(sections: Sequence[Images]) -> Images:
    """Put sections below each other on white: uint8 [H, W, 3]."""
    width = max(part.shape[1] for part in sections)
    padded = [
        np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in sections
    ]
    return np.concatenate(padded)


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    tile: Tile,
    corner: tuple[int, int],
    lines: int,
    blurred: bool,
) -> None:
    left, top = corner
    outer = (left, top, left + SIDE + 2 * FRAME - 1, top + SIDE + 2 * FRAME - 1)
    draw.rectangle(outer, outline=COLOURS[tile.good], width=FRAME)
    picture, scale, (across, down) = _fitted(tile.image)
    if blurred:
        picture = picture.filter(ImageFilter.GaussianBlur(SIDE / BLUR))
    inside = (left + FRAME + across, top + FRAME + down)
    sheet.paste(picture, inside)
    if not blurred:
        for box in tile.boxes:
            _box(draw, box, inside, scale, picture.size)
    below = top + SIDE + 2 * FRAME + 4
    font = _font(FONT_SIZE)
    _text(draw, tile.text, (left, below), PROMPT_LINES, font, "black")
    _text(draw, tile.found, (left, below + lines * LINE), FOUND_LINES, font, COLOURS[tile.good])


def _fitted(image: Images) -> tuple[Image.Image, float, tuple[int, int]]:
    """Return the picture inside a tile, its magnification, and how far it is moved to be in the middle."""
    longest = max(image.shape[:2])
    picture = Image.fromarray(np.ascontiguousarray(image))
    if longest <= SIDE:
        factor = SIDE // longest
        size = (picture.width * factor, picture.height * factor)
        picture, scale = picture.resize(size, Image.Resampling.NEAREST), float(factor)
    else:
        scale = SIDE / longest
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture, scale, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2)


def _box(
    draw: ImageDraw.ImageDraw,
    box: Box,
    inside: tuple[int, int],
    scale: float,
    size: tuple[int, int],
) -> None:
    left, top = (inside[axis] + scale * edge for axis, edge in enumerate((box.left, box.top)))
    right, bottom = (inside[axis] + scale * edge - 1 for axis, edge in enumerate((box.right, box.bottom)))
    left, top = max(left, inside[0]), max(top, inside[1])
    right, bottom = min(right, inside[0] + size[0] - 1), min(bottom, inside[1] + size[1] - 1)
    if right <= left or bottom <= top:
        return
    draw.rectangle((left, top, right, bottom), outline=BOX_COLOUR, width=2)
    if not box.label:
        return
    font = _font(BOX_SIZE)
    label = _cut(box.label, inside[0] + size[0] - left - 4, font)
    width, high = font.getlength(label) + 4, BOX_SIZE + 3
    at = min(left, inside[0] + size[0] - width)
    above = top - high if top - high >= inside[1] else top
    draw.rectangle((at, above, at + width, above + high), fill=BOX_COLOUR)
    draw.text((at + 2, above + high / 2), label, "black", font, anchor="lm")


def _text(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[int, int],
    lines: int,
    font: ImageFont.FreeTypeFont,
    colour: str,
) -> None:
    for number, line in enumerate(_broken(text, lines, font)):
        draw.text((corner[0], corner[1] + number * LINE), line, colour, font)


def _broken(text: str, lines: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Return a text in lines that fit below a tile; the last ends with dots where there is more."""
    width = SIDE + 2 * FRAME
    found: list[str] = []
    for word in text.split():
        joined = f"{found[-1]} {word}" if found else word
        if found and font.getlength(joined) <= width:
            found[-1] = joined
        else:
            found.append(word)
    if len(found) > lines:
        found = [*found[: lines - 1], " ".join(found[lines - 1 :])]
    return [_cut(line, width, font) for line in found]


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return the text, or as much of it as fits with dots."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..." if text else ""


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)
