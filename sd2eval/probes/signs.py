"""Signs drawn with fonts that come with matplotlib: pictures whose text is known, to test readers on.

A sign is a pure function of its text, size and random numbers: a board on a ground, letters of one of four
fonts, in colours far enough apart, turned a little and a little out of focus.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
CAPITAL = 0.73
"""Height of a capital letter, as a share of the font size, in all of these fonts."""
LINE = 1.5
"""From one line to the next, in heights of a capital."""
ROOM = 0.86
"""Share of the picture's width and height that a text may take."""
CONTRAST = 0.35
"""Smallest difference of lightness between letters and board, 0..1."""
TILT = 12.0
"""Degrees, the largest turn to either side."""
BLUR = 0.06
"""Largest radius of blur, in heights of a capital."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sign:
    """A picture with a text in it."""

    image: NDArray[np.uint8]
    """[R, R, 3]"""
    text: str
    height: float
    """Of a capital letter, in pixels."""


def draw_sign(text: str, resolution: int, rng: np.random.Generator, height: float | None = None) -> Sign:
    """Draw a text, one word per line where it is long.

    Args:
        text: what stands on the sign.
        resolution: side of the picture, pixels.
        rng: chooses font, colours, turn and blur.
        height: of a capital in pixels, made smaller where the text does not fit; None takes half to all of
            the room.
    """
    font = FONTS[rng.integers(len(FONTS))]
    lines = _lines(text)
    largest = _largest(lines, font, resolution)
    wanted = largest * rng.uniform(0.5, 1.0) if height is None else min(height, largest)
    board, letters, ground = _colours(rng)
    picture = Image.new("RGB", (resolution, resolution), ground)
    draw = ImageDraw.Draw(picture)
    edge = resolution * 0.02
    draw.rectangle((edge, edge, resolution - edge, resolution - edge), fill=board)
    face = ImageFont.truetype(str(FOLDER / font), wanted / CAPITAL)
    top = resolution / 2 - wanted * LINE * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        draw.text((resolution / 2, top + number * wanted * LINE), line, letters, face, anchor="mm")
    turned = picture.rotate(rng.uniform(-TILT, TILT), Image.Resampling.BICUBIC, fillcolor=ground)
    blurred = turned.filter(ImageFilter.GaussianBlur(wanted * rng.uniform(0, BLUR)))
    return Sign(image=np.asarray(blurred), text=text, height=wanted)


def misspelt(text: str, rng: np.random.Generator) -> str:
    """Return a text with one letter of each word replaced by another one."""
    return " ".join(_misspelt(word, rng) for word in text.split())


def _misspelt(word: str, rng: np.random.Generator) -> str:
    place = int(rng.integers(len(word)))
    others = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter != word[place].upper()]
    letter = others[rng.integers(len(others))]
    return word[:place] + (letter if word.isupper() else letter.lower()) + word[place + 1 :]


def _lines(text: str) -> list[str]:
    """Break a text into lines of about equal length, none longer than its longest word or 8 letters."""
    longest = max(8, *(len(word) for word in text.split()))
    lines = [""]
    for word in text.split():
        together = f"{lines[-1]} {word}".strip()
        if len(together) <= longest:
            lines[-1] = together
        else:
            lines.append(word)
    return lines


def _largest(lines: list[str], font: str, resolution: int) -> float:
    """Return the height of a capital at which a text fills its room."""
    wide = max(_width(line, font) for line in lines)
    return resolution * ROOM * min(1 / wide, 0.5 / (LINE * len(lines)))


@cache
def _width(line: str, font: str) -> float:
    """Return a line's width in heights of a capital."""
    return ImageFont.truetype(str(FOLDER / font), 100).getlength(line) / (100 * CAPITAL)


def _colours(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return colours of board, letters and ground; the first two differ in lightness."""
    board = rng.uniform(0, 1)
    letters = board
    while abs(letters - board) < CONTRAST:
        letters = rng.uniform(0, 1)
    lightness = (board, letters, rng.uniform(0, 1))
    return [_rgb(rng.uniform(0, 1), one, rng.uniform(0, 0.8)) for one in lightness]


def _rgb(hue: float, lightness: float, saturation: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in colorsys.hls_to_rgb(hue, lightness, saturation))
    return red, green, blue
