"""The mini data set in COCO's layout, made anew byte for byte by ``python -m sd2eval.mini.dataset``."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from sd2eval.mini import DATA
from sd2eval.mini.captions import write_captions
from sd2eval.mini.render import render, silhouettes
from sd2eval.mini.world import HELD_OUT_SEED, SHAPES, Scene, draw_scene

COUNT = 512
SIZE = 64
#: COCO's ids are arbitrary and so are these: an image id is never a caption id.
FIRST_IMAGE_ID, FIRST_CAPTION_ID, FIRST_INSTANCE_ID = 1_000, 500_000, 900_000
_INFO = {"description": "sd2eval mini world, held-out scenes", "version": "1.0", "year": 2026}


def held_out_scenes(count: int = COUNT) -> list[Scene]:
    """The scenes behind the data set, in the order of their image ids."""
    return [draw_scene(HELD_OUT_SEED, index) for index in range(count)]


def image_record(index: int) -> dict[str, Any]:
    """COCO's entry of image number ``index``."""
    image_id = FIRST_IMAGE_ID + index
    return {"id": image_id, "file_name": f"{image_id:012d}.png", "width": SIZE, "height": SIZE}


def caption_records(scene: Scene, index: int) -> list[dict[str, Any]]:
    """The five captions of image number ``index``."""
    captions = write_captions(scene, HELD_OUT_SEED, index)
    first = FIRST_CAPTION_ID + index * len(captions)
    return [
        {"id": first + i, "image_id": FIRST_IMAGE_ID + index, "caption": caption}
        for i, caption in enumerate(captions)
    ]


def instance_records(scene: Scene, index: int) -> list[dict[str, Any]]:
    """One record per object: category, box [x, y, width, height] in pixels, area, mask (compressed RLE)."""
    shapes = [item.shape for item in scene.items for _ in range(scene.count)]
    records = []
    for number, (shape, mask) in enumerate(zip(shapes, silhouettes(scene, SIZE), strict=True)):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        records.append(
            {
                "id": FIRST_INSTANCE_ID + 3 * index + number,
                "image_id": FIRST_IMAGE_ID + index,
                "category_id": SHAPES.index(shape) + 1,
                "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                "area": float(coco_mask.area(rle)),
                "iscrowd": 0,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    return records


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_dataset(folder: Path, count: int = COUNT) -> None:
    """Writes ``images/`` and ``annotations/`` of the first ``count`` held-out scenes."""
    scenes = held_out_scenes(count)
    images = [image_record(index) for index in range(count)]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for scene, record in zip(scenes, images, strict=True):
        (folder / "images" / record["file_name"]).write_bytes(encode_png(render(scene, SIZE)[0]))
    captions = [r for i, scene in enumerate(scenes) for r in caption_records(scene, i)]
    instances = [r for i, scene in enumerate(scenes) for r in instance_records(scene, i)]
    categories = [
        {"id": i, "name": shape, "supercategory": "solid"} for i, shape in enumerate(SHAPES, start=1)
    ]
    _write(folder, "captions_mini", {"info": _INFO, "images": images, "annotations": captions})
    _write(
        folder,
        "instances_mini",
        {"info": _INFO, "images": images, "annotations": instances, "categories": categories},
    )


def _write(folder: Path, name: str, value: dict[str, Any]) -> None:
    path = folder / "annotations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m sd2eval.mini.dataset", description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write (default: the packaged one)")
    write_dataset(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
