"""COCO captions: read them, refuse what is wrong with them by name, and draw n of them.

The format is that of https://cocodataset.org/#format-data (captions): an object with `images` (`id`,
`file_name`) and `annotations` (`id`, `image_id`, `caption`). A prompt's key is its *caption id*.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sd2eval.errors import InputError
from sd2eval.records import Prompt

MAX_ID = 2**63 - 1
"""Ids are kept in int64 arrays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFile:
    """Everything a COCO caption file says that an evaluation needs."""

    prompts: tuple[Prompt, ...]
    """All captions, by ascending caption id."""
    image_files: tuple[str, ...]
    """File names of all images, by ascending image id, also of those without a caption."""
    digest: str
    """SHA-256 (hex) of the file's bytes."""


def load_captions(path: Path) -> CaptionFile:
    """Read a COCO caption file; the bytes that are checked are the bytes that are digested.

    Runs of white space in a caption become one space, which is what every CLIP tokenizer does first: the
    pixels stay the same and a caption is always one line.

    Raises:
        InputError: The file is unreadable or not such a file; one line that names the file and the record.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the caption file: {error.strerror or error}") from error
    data = _parse(raw, path)
    images = _records(data, "images", path)
    annotations = _records(data, "annotations", path)
    _check_images(images, path)
    _check_annotations(annotations, {image["id"] for image in images}, path)
    index = _index(images, annotations)
    prompts = tuple(
        Prompt(
            caption_id=record["id"],
            image_id=record["image_id"],
            image_file=index.imgs[record["image_id"]]["file_name"],
            text=" ".join(record["caption"].split()),
        )
        for record in index.loadAnns(sorted(index.getAnnIds()))
    )
    files = tuple(record["file_name"] for record in index.loadImgs(sorted(index.getImgIds())))
    return CaptionFile(prompts=prompts, image_files=files, digest=hashlib.sha256(raw).hexdigest())


def select(prompts: Iterable[Prompt], digest: str, seed: int, n: int) -> list[Prompt]:
    """Draw `n` random captions as a pure function of (annotation digest, seed, n).

    Captions are ranked by SHA-256 of `digest/seed/caption id`, so no library's random stream is involved, the
    order of the file does not matter, and the draw of 32 is the beginning of the draw of 64.

    Raises:
        InputError: `n` is below 1 or more than there are captions.
    """
    pool = list(prompts)
    if not 1 <= n <= len(pool):
        raise InputError(f"prompts.n={n}: must be from 1 to {len(pool)}, the number of captions in the file")
    pool.sort(key=lambda prompt: rank(digest, seed, prompt.caption_id))
    return pool[:n]


def rank(digest: str, seed: int, caption_id: int) -> bytes:
    """Return what captions are drawn by: ascending, whatever the file's order."""
    return hashlib.sha256(f"{digest}/{seed}/{caption_id}".encode()).digest()


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """Return the SHA-256 (hex) of the ordered list of (caption id, text)."""
    pairs = [[prompt.caption_id, prompt.text] for prompt in prompts]
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def missing_images(wanted: Iterable[Prompt | str], folder: Path) -> list[str]:
    """Return the distinct file names, in order of first use, that are not files below `folder`."""
    return [name for name in _distinct(wanted) if not (folder / name).is_file()]


def missing_message(missing: Sequence[str], wanted: Iterable[Prompt | str], folder: Path) -> str:
    """Say in one line how many of the wanted images are missing and what to do about it."""
    total = len(_distinct(wanted))
    if not folder.is_dir():
        return f"{folder}: there is no such image folder ({total} images wanted); set data.root"
    there = total - len(missing)
    way_out = f"; set data.allow_missing=true to go on with the {there} that are there" if there else ""
    return f"{len(missing)} of {total} images are missing in {folder}, first: {missing[0]}{way_out}"


def _distinct(wanted: Iterable[Prompt | str]) -> list[str]:
    return list(dict.fromkeys(item if isinstance(item, str) else item.image_file for item in wanted))


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except json.JSONDecodeError as error:
        # A caption file ends with its closing brace; a download that broke off does not.
        cut = "" if raw.rstrip().endswith(b"}") else "; the file seems to be cut off"
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: not valid JSON at {where}: {error.msg}{cut}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not valid JSON: byte {error.start} is not {error.encoding} text"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: not a caption file: nested too deeply") from error
    except ValueError as error:  # an integer of more than 4300 digits
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a caption file: the top level is {_kind(data)}, not an object")
    return data


def _records(data: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    if key not in data:
        raise InputError(f"{path}: not a caption file: it has no {key!r}")
    records = data[key]
    if not isinstance(records, list):
        raise InputError(f"{path}: {key!r} is {_kind(records)}, not a list")
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{path}: {key}[{position}] is {_kind(record)}, not an object")
    if not records:
        raise InputError(f"{path}: {key!r} is empty")
    return records


def _check_images(images: list[dict[str, Any]], path: Path) -> None:
    seen: set[int] = set()
    for position, image in enumerate(images):
        where = f"{path}: images[{position}]"
        key = _integer(image, "id", where)
        where = f"{path}: image {key}"
        if key in seen:
            raise InputError(f"{where}: two images have this id")
        seen.add(key)
        name = _text(image, "file_name", where)
        if not _stays_inside(name):
            raise InputError(f"{where}: file_name {reprlib.repr(name)} does not stay inside the image folder")


def _check_annotations(annotations: list[dict[str, Any]], images: set[int], path: Path) -> None:
    seen: set[int] = set()
    for position, annotation in enumerate(annotations):
        where = f"{path}: annotations[{position}]"
        key = _integer(annotation, "id", where)
        where = f"{path}: caption {key}"
        if key in seen:
            raise InputError(f"{where}: two captions have this id")
        seen.add(key)
        image = _integer(annotation, "image_id", where)
        _text(annotation, "caption", where)
        if image not in images:
            raise InputError(f"{where}: its image {image} is not among the images of the file")


def _integer(record: dict[str, Any], key: str, where: str) -> int:
    if key not in record:
        raise InputError(f"{where}: it has no {key!r}")
    value = record[key]
    if type(value) is not int:  # not isinstance: True is an int
        raise InputError(f"{where}: {key!r} is {_kind(value)}, not an integer")
    if not 0 <= value <= MAX_ID:
        raise InputError(f"{where}: {key!r} is {'negative' if value < 0 else 'larger than 63 bits'}")
    return value


def _text(record: dict[str, Any], key: str, where: str) -> str:
    if key not in record:
        raise InputError(f"{where}: it has no {key!r}")
    value = record[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} is {_kind(value)}, not a text")
    if not value.strip():
        raise InputError(f"{where}: {key!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # "\ud800": JSON can say it, no tokenizer or file can take it
        raise InputError(
            f"{where}: {key!r} holds half a surrogate pair at character {error.start}"
        ) from error
    return value


def _stays_inside(name: str) -> bool:
    windows = PureWindowsPath(name)
    plain = name.isprintable() and "\\" not in name and not name.endswith("/")
    rooted = windows.drive or windows.root or PurePosixPath(name).is_absolute()
    return plain and not rooted and PurePosixPath(name).name != "" and ".." not in PurePosixPath(name).parts


def _index(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print
        coco = COCO()
        # Only what captions need: the same file may hold categories, which pycocotools would index unchecked.
        coco.dataset = {"images": images, "annotations": annotations}
        coco.createIndex()
    return coco


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", float: "a float"}
    return "null" if value is None else names.get(type(value), "an integer")
