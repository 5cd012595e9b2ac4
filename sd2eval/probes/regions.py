"""Masks of things in real images, from COCO's instances, in the geometry that a checkpoint is shown."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval import images
from sd2eval.config import ProtocolConfig
from sd2eval.errors import InputError

Masks = NDArray[np.bool_]


class Instances:
    """An instances file, read by pycocotools."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            InputError: it is not such a file.
        """
        from pycocotools.coco import COCO

        self.path = path
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print
                self.coco: Any = COCO(str(path))
        except (OSError, ValueError, KeyError, AssertionError) as error:
            raise InputError(f"{path}: no COCO instances ({error})") from error
        self._ids = {record["file_name"]: key for key, record in self.coco.imgs.items()}

    def categories(self, names: Sequence[str]) -> list[int]:
        """Return the ids of categories, named by themselves or by their supercategory.

        Raises:
            InputError: there is none of a name.
        """
        found: list[int] = []
        for name in names:
            ids = self.coco.getCatIds(catNms=[name]) or self.coco.getCatIds(supNms=[name])
            if not ids:
                have = ", ".join(record["name"] for record in self.coco.cats.values())
                raise InputError(f"{self.path}: no category '{name}' ({have})")
            found += ids
        return found

    def annotations(self, file_name: str, categories: Sequence[int], below: float = np.inf) -> list[Any]:
        """Return an image's instances of categories, crowds left out, of an area below a number of pixels.

        Raises:
            InputError: the image is not in the file.
        """
        if file_name not in self._ids:
            raise InputError(f"{self.path}: knows nothing of the image {file_name}")
        keys = self.coco.getAnnIds(imgIds=[self._ids[file_name]], catIds=list(categories), iscrowd=False)
        return [one for one in self.coco.loadAnns(keys) if one["area"] < below]

    def mask(self, annotations: Sequence[Any]) -> Masks | None:
        """Return the union of instances of one image, bool [H, W] of the stored picture; None of nothing."""
        union: Masks | None = None
        for one in annotations:
            own = self.coco.annToMask(one).astype(bool)
            union = own if union is None else union | own
        return union


def as_shown(mask: Masks, resolution: int, protocol: ProtocolConfig) -> Masks:
    """Bring a mask of a stored picture to the square that is compared, bool [R, R]; it may be empty there.

    It takes the picture's own way: to the checkpoint's resolution, then to the protocol's.
    """
    grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    square = images.square(grey, resolution, "bilinear")
    shown: Masks = images.for_protocol(square, protocol)[..., 0] >= 128
    return shown


def parts_of(
    instances: Instances, file_name: str, parts: Mapping[str, Sequence[str]], small_area: float
) -> dict[str, Masks]:
    """Return the masks of an image by part, in the stored geometry; parts that it lacks are not there.

    Args:
        instances: the file.
        file_name: of the image.
        parts: names of categories or supercategories by part.
        small_area: pixels in the stored picture below which an object of any category is `small`.
    """
    wanted = {part: instances.annotations(file_name, instances.categories(of)) for part, of in parts.items()}
    wanted["small"] = instances.annotations(file_name, (), small_area)
    masks = {part: instances.mask(annotations) for part, annotations in wanted.items()}
    return {part: mask for part, mask in masks.items() if mask is not None}
