"""Three networks in a row that find faces (Zhang et al. 2016, MTCNN), without their landmarks.

The first looks at every square of 12 pixels of the picture at falling sizes, the others look again at
what is left, in 24 and 48 pixels; each corrects the boxes of the one before. Boxes are rows of left, top,
right, bottom and score, in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Network = Callable[[Array], tuple[Array, Array]]
"""Pixels float32 [N, W, H, 3] in -1..1, columns before rows as the networks were trained, to corrections
[N, ..., 4] and scores of "face" [N, ...]."""

CELL, STRIDE = 12, 2
"""Pixels that the first network sees at once, and from one place to the next."""
SHRINK = 0.709
"""From one size of the picture to the next: half the area."""
SECOND, THIRD = 24, 48
OVERLAP_NEAR, OVERLAP = 0.5, 0.7
"""Of two boxes that overlap more (intersection over union) the better one stays: at one size, after."""


def faces(
    image: NDArray[np.uint8],
    networks: tuple[Network, Network, Network],
    smallest: int,
    thresholds: tuple[float, float, float],
) -> Array:
    """Return the faces of a picture, float32 [K, 5], best first.

    Args:
        image: uint8 [H, W, 3].
        networks: in their order.
        smallest: side of the smallest face that is looked for, pixels.
        thresholds: score that a box needs in each network, 0..1.
    """
    boxes = first_boxes(image, networks[0], smallest, thresholds[0])
    for network, side, threshold in zip(networks[1:], (SECOND, THIRD), thresholds[1:], strict=True):
        if len(boxes) == 0:
            break
        correction, score = network(crops(image, square(boxes), side))
        kept = score >= threshold
        boxes = corrected(np.c_[square(boxes)[kept, :4], score[kept]], correction[kept])
        boxes = boxes[without_doubles(boxes, OVERLAP)]
    return boxes[without_doubles(boxes, OVERLAP, of_smaller=True)]


def first_boxes(image: NDArray[np.uint8], network: Network, smallest: int, threshold: float) -> Array:
    """Return where the first network sees a face at any size."""
    found = [np.zeros((0, 5), np.float32)]
    scale, side = CELL / smallest, min(image.shape[:2])
    while side * scale >= CELL:
        width, height = (int(np.ceil(length * scale)) for length in image.shape[1::-1])
        small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
        correction, score = network(_normalised(small[None]))
        columns, rows = np.nonzero(score[0] >= threshold)
        corners = np.c_[columns, rows] * STRIDE
        boxes = np.c_[corners / scale, (corners + CELL) / scale, score[0][columns, rows]]
        kept = without_doubles(boxes, OVERLAP_NEAR)
        found.append(corrected(boxes, correction[0][columns, rows])[kept])
        scale *= SHRINK
    boxes = np.concatenate(found)
    return boxes[without_doubles(boxes, OVERLAP)]


def corrected(boxes: Array, correction: Array) -> Array:
    """Return boxes moved by shares of their width and height, [K, 5]."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    moved = boxes[:, :4] + correction * np.c_[width, height, width, height]
    joined: Array = np.c_[moved, boxes[:, 4]].astype(np.float32)
    return joined


def square(boxes: Array) -> Array:
    """Return boxes widened to squares around their centres, [K, 5]."""
    centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    squares: Array = np.c_[centres - half, centres + half, boxes[:, 4]].astype(np.float32)
    return squares


def crops(image: NDArray[np.uint8], boxes: Array, side: int) -> Array:
    """Return a network's input of each box; what lies outside the picture is black."""
    picture, found = Image.fromarray(image), []
    for left, top, right, bottom in np.rint(boxes[:, :4]).astype(int):
        part = picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        found.append(np.asarray(part.resize((side, side), Image.Resampling.BILINEAR)))
    return _normalised(np.stack(found))


def without_doubles(boxes: Array, overlap: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Return the rows of boxes that no better one covers, best first.

    Args:
        boxes: [K, 5].
        overlap: what two boxes may share at most, 0..1.
        of_smaller: measured as a share of the smaller one, otherwise of both together.
    """
    order = np.argsort(-boxes[:, 4], kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        corner = (
            np.maximum(boxes[best, :2], boxes[order, :2]),
            np.minimum(boxes[best, 2:4], boxes[order, 2:4]),
        )
        shared = np.clip(corner[1] - corner[0], 0, None).prod(axis=1)
        whole = np.minimum(area[best], area[order]) if of_smaller else area[best] + area[order] - shared
        order = order[shared <= overlap * whole]
    return np.array(kept, dtype=np.intp)


def _normalised(images: NDArray[np.uint8]) -> Array:
    """Return uint8 [N, H, W, 3] as the networks take it, float32 [N, W, H, 3]."""
    scaled: Array = ((images.astype(np.float32) - 127.5) / 128).astype(np.float32)
    return scaled.transpose(0, 2, 1, 3)
