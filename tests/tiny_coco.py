"""A data set of six pictures in COCO's layout, and archives of it like the published ones."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from sd2eval.coco import COCO_2017_VALIDATION, Archive, Published
from sd2eval.coco_check import Layout
from tests.loopback import Loopback

IMAGES = 6
ANNOTATIONS = tuple(COCO_2017_VALIDATION.layout.files)
CAPTIONS, INSTANCES, KEYPOINTS = ANNOTATIONS


def picture(key: int) -> bytes:
    pixels = np.random.default_rng(key).integers(0, 256, (40 + key, 60 - key, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def contents() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the members of the annotations' and of the images' archive."""
    images = [
        {"id": key, "file_name": f"{key:012}.jpg", "width": 60 - key, "height": 40 + key}
        for key in range(1, IMAGES + 1)
    ]
    captions = [
        {"id": 10 * key, "image_id": key, "caption": f"picture {key}"} for key in range(1, IMAGES + 1)
    ]
    annotations = {
        CAPTIONS: json.dumps({"images": images, "annotations": captions}).encode(),
        INSTANCES: json.dumps({"images": images, "annotations": []}).encode(),
        KEYPOINTS: b"{}",
        "annotations/captions_train2017.json": b"not wanted",
    }
    return annotations, {f"val2017/{image['file_name']}": picture(int(image["id"])) for image in images}


def zipped(members: dict[str, bytes], folder: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if folder:
            archive.mkdir(folder)
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive_of(name: str, content: bytes, url: str, **how: object) -> Archive:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Archive(name=name, url=url, size=len(content), digest=digest, unpacked=100_000, **how)  # type: ignore[arg-type]


def publish(server: Loopback) -> Published:
    """Serve both archives and return the table that names them."""
    members, images = contents()
    first, second = zipped(members), zipped(images, "val2017")
    digests = {file: hashlib.sha256(members[file]).hexdigest() for file in (CAPTIONS, INSTANCES)}
    return Published(
        annotations=archive_of(
            "annotations.zip",
            first,
            server.add("annotations.zip", first),
            folder="annotations",
            only=ANNOTATIONS,
        ),
        images=archive_of("val2017.zip", second, server.add("val2017.zip", second), folder="val2017"),
        layout=Layout(captions=CAPTIONS, images="val2017", files={KEYPOINTS: "", **digests}),
    )


def write_folder(root: Path) -> Path:
    """Write the data set as somebody else would have it, whole."""
    for members in contents():
        for name, content in members.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def whole() -> dict[str, bytes]:
    annotations, images = contents()
    return {file: annotations[file] for file in ANNOTATIONS} | images


def asked(server: Loopback) -> list[str]:
    return [request.path for request in server.log]
