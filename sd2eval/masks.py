"""Inpainting masks in the manner the inpainting checkpoint was trained with.

Its config names `ldm.data.laion.AddMask(mode="512train-large", p_drop=0.25)`, code that was never published
with the checkpoint. The parameters below are those of the published copies of `synthetic_mask.py` (after
LaMa, Suvorov et al., 2022). Inferred, not known:

- `p_drop=0.25` is taken to mean "mask everything in a quarter of the cases".
- The order of the draws, hence which caption gets which mask, is this module's own.
- Other sizes than 512 scale the drawing, so that a caption has the same mask at every size.

Known quirks that are kept: a stroke's angle is a whole number from 0 to 359 used as *radians*; the segments
of a stroke do not hang together, each starts anywhere; a rounded box is a square of the drawn width.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Mask = npt.NDArray[np.bool_]

BASE = 512
"""The pixel unit of all lengths below."""
P_EVERYTHING = 0.25
P_STROKES = 0.5
SEGMENTS = (1, 5)
LENGTH = (10, 450)
WIDTH = (5, 400)
ANGLE = (0, 360)
BOXES = (1, 4)
SIDE = (75, 450)
MARGIN = 10
P_ROUNDED = 0.5
RADIUS = (0, 60)
"""Intervals are half-open, as numpy's `randint` takes them."""


def mask(seed: int, caption_id: int, size: int) -> Mask:
    """Return the mask of a caption as bool [size,size]; True is to be painted, False is to be kept.

    A pure function of its arguments: numpy's `RandomState` (whose streams are frozen) is seeded with SHA-256
    of seed and caption id. At least one pixel is True.

    Raises:
        ValueError: `size` is below 16, where boxes vanish.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    key = hashlib.sha256(f"mask/{seed}/{caption_id}".encode()).digest()
    random = np.random.RandomState(np.frombuffer(key, dtype=">u4").astype(np.uint32))
    everything, strokes = random.random_sample(2) < (P_EVERYTHING, P_STROKES)
    if everything:
        return np.ones((size, size), dtype=np.bool_)
    canvas = Image.new("L", (size, size), 0)
    (_strokes if strokes else _boxes)(ImageDraw.Draw(canvas), random, size / BASE)
    return np.asarray(canvas) > 0


def _strokes(draw: ImageDraw.ImageDraw, random: np.random.RandomState, scale: float) -> None:
    """Draw one to four separate thick segments."""
    for _ in range(random.randint(*SEGMENTS)):
        x, y = random.randint(0, BASE, 2)
        length, width, angle = random.randint(*LENGTH), random.randint(*WIDTH), random.randint(*ANGLE)
        ends = (
            x,
            y,
            min(max(x + length * math.sin(angle), 0), BASE),
            min(max(y + length * math.cos(angle), 0), BASE),
        )
        draw.line([end * scale for end in ends], fill=1, width=max(1, round(width * scale)))
        draw.point((int(x * scale), int(y * scale)), fill=1)  # a segment without length has no pixels


def _boxes(draw: ImageDraw.ImageDraw, random: np.random.RandomState, scale: float) -> None:
    """Draw one to three boxes, about half of them as squares with round corners."""
    for _ in range(random.randint(*BOXES)):
        width, height = random.randint(*SIDE, 2)
        left, top = random.randint(MARGIN, BASE - MARGIN - np.array([width, height]) + 1)
        rounded, radius = random.random_sample() < P_ROUNDED, random.randint(*RADIUS)
        bottom = top + (width if rounded else height)
        x, y = round(left * scale), round(top * scale)
        # Pillow's last column and row belong to the box.
        box = (x, y, max(x, round((left + width) * scale) - 1), max(y, round(bottom * scale) - 1))
        draw.rounded_rectangle(box, radius * scale if rounded else 0, fill=1)
