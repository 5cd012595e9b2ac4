"""Whether a folder in COCO's layout is whole: captions, annotations, and every image down to its last row."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sd2eval.errors import InputError
from sd2eval.images import load_rgb
from sd2eval.prompts import load_captions
from sd2eval.transfer.digests import fault_of, file_digest
from sd2eval.transfer.meter import Meter

MANIFEST = "sd2eval-manifest.json"
SCHEMA_VERSION = 1
MISSING = "missing"
WORKERS = 8
"""At most; decoding an image lets other threads run."""

Size = tuple[int, int]
"""Width, height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the parts of a data set lie below its folder, and what is known of them."""

    captions: str
    images: str
    files: Mapping[str, str]
    """SHA-256 of each annotation file, by its path; empty where none is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One file that is not as it should be."""

    file: str
    what: str
    """`missing`, or what is wrong with it."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a check found."""

    captions: int
    images: int
    """That the captions' file lists."""
    faults: tuple[Fault, ...]
    absent: tuple[str, ...]
    """Annotation files that are not there; only the captions are indispensable."""
    compared: int
    """Files whose digest was recorded when they were fetched, and is the same."""

    @property
    def missing(self) -> tuple[Fault, ...]:
        """Return the faults that are files which are not there."""
        return tuple(fault for fault in self.faults if fault.what == MISSING)

    @property
    def wrong(self) -> tuple[Fault, ...]:
        """Return the faults that are files which are there and not right."""
        return tuple(fault for fault in self.faults if fault.what != MISSING)


def check_folder(root: Path, layout: Layout, *, progress: bool = True) -> Condition:
    """Read everything: digests of the annotations, and each listed image, decoded to its end.

    An image must have the width and height its record says, and the bytes that a manifest recorded if there
    is one. Without a manifest, flipped bits that still decode cannot be noticed.

    Raises:
        InputError: there is no such folder, or its captions or its manifest cannot be read.
    """
    if not root.is_dir():
        problem = "is a file; a folder is needed" if root.exists() else "there is no such folder"
        raise InputError(f"{root}: {problem}")
    captions = load_captions(root / layout.captions)
    digests = read_manifest(root)
    there = [file for file in layout.files if (root / file).exists()]
    faults = [*_wrong_annotations(root, layout, there, digests)]
    sizes = _image_sizes(root / layout.captions)
    files = {f"{layout.images}/{name}": sizes.get(name) for name in captions.image_files}
    faults += _check_images(root, files, digests, progress)
    bad = {fault.file for fault in faults}
    return Condition(
        captions=len(captions.prompts),
        images=len(files),
        faults=tuple(faults),
        absent=tuple(file for file in layout.files if file not in there),
        compared=sum(file in digests and file not in bad for file in (*there, *files)),
    )


def check_annotations(root: Path, layout: Layout) -> list[Fault]:
    """Return the annotation files below `root` that are there and not the published or the recorded ones."""
    there = [file for file in layout.files if (root / file).exists()]
    return _wrong_annotations(root, layout, there, read_manifest(root))


def read_manifest(root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that was fetched, by its path below `root`; empty without a manifest.

    Raises:
        InputError: it is there and damaged: what files are compared with is never ignored.
    """
    path = root / MANIFEST
    try:
        data = json.loads(path.read_text())
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {data['schema_version']}, this sd2eval knows {SCHEMA_VERSION}")
        return {str(file): str(digest) for file, digest in data["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable manifest ({error}); move it away") from error


def _wrong_annotations(
    root: Path, layout: Layout, there: Iterable[str], digests: Mapping[str, str]
) -> list[Fault]:
    whats = {
        file: _annotation_fault(root / file, layout.files[file], digests.get(file, "")) for file in there
    }
    return [Fault(file=file, what=what) for file, what in whats.items() if what]


def _annotation_fault(path: Path, published: str, fetched: str) -> str:
    for digest, whose in ((published, "published"), (fetched, "fetched")):
        what = fault_of(path, digest=f"sha256:{digest}") if digest else ""
        if what:
            return f"not the {whose} file: it {what}"
    if published or fetched:
        return ""
    try:  # its digest is unknown; a file that was cut off is no JSON
        json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return f"not valid JSON ({error})"
    return ""


def _image_sizes(path: Path) -> dict[str, Size]:
    """Return the size of each image whose record says it, by file name."""
    records: list[dict[str, Any]] = json.loads(path.read_bytes())["images"]
    said = (record for record in records if "width" in record and "height" in record)
    return {record["file_name"]: (record["width"], record["height"]) for record in said}


def _check_images(
    root: Path, files: Mapping[str, Size | None], digests: Mapping[str, str], progress: bool
) -> list[Fault]:
    check = partial(_image_fault, root, files, digests)
    pool = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1))
    whats = []
    try:
        with Meter(f"checking {root}", len(files), unit="images", show=progress) as meter:
            for what in pool.map(check, files):
                whats.append(what)
                meter.to(len(whats))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return [Fault(file=file, what=what) for file, what in zip(files, whats, strict=True) if what]


def _image_fault(root: Path, sizes: Mapping[str, Size | None], digests: Mapping[str, str], file: str) -> str:
    path = root / file
    if path.is_symlink() and not path.exists():
        return f"is a link to {path.readlink()}, which is not there"
    if path.is_dir():
        return "is a folder, not an image"
    if not path.is_file():
        return MISSING
    try:
        height, width = load_rgb(path).shape[:2]
        if file in digests and file_digest(path) != digests[file]:
            return "its bytes are not those that were fetched"
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    size = sizes[file]
    if size is not None and size != (width, height):
        return f"is {width}x{height}, not {size[0]}x{size[1]} as the captions file says"
    return ""
