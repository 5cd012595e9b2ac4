"""A small data set of pictures that are not square, where the choice of crop, resize and JPEG shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = 8
CAPTIONS = "captions.json"


def write(root: Path) -> tuple[str, ...]:
    """Write the data set and return the words of a sweep that takes it."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(7)
    images, captions = [], []
    for key in range(1, PICTURES + 1):
        width, height = (100, 70 + 3 * key) if key % 2 else (66 + key, 110)
        y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)][..., None]
        waves = np.sin(x * rng.uniform(-40, 40, 3) + y * rng.uniform(-40, 40, 3))
        pixels = (128 + 100 * waves + rng.normal(scale=12, size=waves.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{key}.png")
        images.append({"id": key, "file_name": f"{key}.png", "width": width, "height": height})
        captions += [  # two each: captions of one picture are not independent
            {"id": 10 * key + which, "image_id": key, "caption": f"a {colour} ball, picture {key}"}
            for which, colour in enumerate(("red", "blue"))
        ]
    (root / CAPTIONS).write_text(json.dumps({"images": images, "annotations": captions}))
    return (f"data.root={root}", f"data.captions={CAPTIONS}", "data.images=images", "data.name=uneven")


SWEEP = ("experiment=smoke", "checkpoints=[512-base]", "prompts.n=6", "progress=false")
