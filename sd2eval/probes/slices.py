"""Images of a data set by what is annotated in them, and how far images are from the nearest real one."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._distances import between, nearest
from sd2eval.metrics.neighbours import PRECISION_K, NeighbourReference, neighbour_reference
from sd2eval.probes.proportions import Share

Array = NDArray[np.float64]


def categories(instances: Path, level: str) -> dict[str, tuple[str, ...]]:
    """Return what each image shows, by file name: its annotated categories, each once, sorted.

    Args:
        instances: COCO's instances file.
        level: `supercategory`, or `category` for their names themselves.

    Raises:
        InputError: the file is not COCO's.
    """
    coco = _index(instances)
    key = "supercategory" if level == "supercategory" else "name"
    names = {number: str(record[key]) for number, record in coco.cats.items()}
    return {
        image["file_name"]: tuple(sorted({names[one["category_id"]] for one in coco.imgToAnns[number]}))
        for number, image in coco.imgs.items()
    }


def members(shown: Sequence[Sequence[str]]) -> dict[str, NDArray[np.intp]]:
    """Return which images [n] show each category, the most frequent category first.

    An image counts in each category that it shows.
    """
    names = sorted({name for one in shown for name in one})
    found = {name: np.flatnonzero([name in one for one in shown]) for name in names}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def nearest_real(features: ArrayLike, real: ArrayLike, own: ArrayLike) -> Array:
    """Return the distance of each image to its nearest real one, its caption's own image left out, [n].

    Args:
        features: of the images, [n, d].
        real: of the real images, [m, d].
        own: [n], row of the caption's image in `real`, or -1 where it is not there.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(real, dtype=np.float64)
    leave, least = np.asarray(own), np.empty(len(x))
    for rows, squares in between(x, y):
        left = leave[rows]
        there = np.flatnonzero(left >= 0)
        squares[there, left[there]] = np.inf
        least[rows] = squares.min(axis=1)
    distances: Array = np.sqrt(np.maximum(least, 0.0))
    return distances


def among_real(real: ArrayLike) -> Array:
    """Return the distance of each real image to its nearest other one, [m]."""
    distances: Array = np.sqrt(nearest(np.asarray(real, dtype=np.float64), 1, "real images")[0][:, 0])
    return distances


def median(values: ArrayLike) -> Share:
    """Return the median with the interval between two order statistics, which assumes no distribution.

    The k-th smallest and k-th largest of n, k the largest with at most 2.5% for a binomial of n and 1/2 to
    fall below it (Conover 1999, section 3.2); the least and the largest where n is too small for 95%.
    """
    from scipy.stats import binom

    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    k = max(int(binom.ppf(0.025, n, 0.5)), 1)
    low, high = float(x[k - 1]), float(x[n - k])
    return Share(float(np.median(x)), (high - low) / (2 * 1.959964), low, high, n, float(n), n)


def inside(features: ArrayLike, reference: NeighbourReference) -> NDArray[np.bool_]:
    """Return which images [n, d] lie among real ones: what `precision` is the mean of."""
    x = np.asarray(features, dtype=np.float64)
    found = np.zeros(len(x), dtype=np.bool_)
    for rows, squares in between(x, reference.features, reference.squared_radii):
        found[rows] = (squares <= reference.squared_radii).any(axis=1)
    return found


def inside_others(real: ArrayLike) -> NDArray[np.bool_]:
    """Return which real images [m, d] lie among the *other* real ones: the yardstick of `inside`."""
    reference = neighbour_reference(real, PRECISION_K)
    x = reference.features
    found = np.zeros(len(x), dtype=np.bool_)
    for rows, squares in between(x, x, reference.squared_radii):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.start + len(squares))] = np.inf
        found[rows] = (squares <= reference.squared_radii).any(axis=1)
    return found


def _index(instances: Path) -> Any:
    from pycocotools.coco import COCO

    try:
        data = json.loads(instances.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{instances}: cannot be read ({error})") from error
    _check(data, instances)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
    return coco


def _check(data: Any, instances: Path) -> None:
    """Refuse what pycocotools would index without a word, or stumble over."""
    needs: Mapping[str, tuple[str, ...]] = {
        "images": ("id", "file_name"),
        "categories": ("id", "name", "supercategory"),
        "annotations": ("id", "image_id", "category_id"),
    }
    for part, keys in needs.items():
        records = data.get(part) if isinstance(data, dict) else None
        if not isinstance(records, list):
            raise InputError(f"{instances}: '{part}' must be a list, as in COCO's instances")
        for at, record in enumerate(records):
            lacking = [key for key in keys if not isinstance(record, dict) or key not in record]
            if lacking:
                raise InputError(f"{instances}: {part}[{at}]: it has no '{lacking[0]}'")
    known = {record["id"] for record in data["categories"]}
    for at, record in enumerate(data["annotations"]):
        if record["category_id"] not in known:
            raise InputError(f"{instances}: annotations[{at}]: no category has its category_id")
