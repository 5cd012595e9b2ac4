"""The one loader of data files: prompts, and other records, each with its source and licence.

A file is JSON: `{"name": ..., "source": ..., "licence": ..., "prompts": [...]}`. A prompt has `text`, and
may have `key` (else its position), `group`, `image_file` and `labels`. Other facts stand in `records`
instead, a list of objects whose keys their probe names. A user's own list of prompts may also be a `.txt`,
one per line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd2eval.errors import InputError
from sd2eval.probes.base import ProbePrompt, PromptSet
from sd2eval.prompts import MAX_ID

DATA = Path(__file__).parent / "data"
HEAD = ("name", "source", "licence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Facts of a data file."""

    name: str
    source: str
    licence: str
    records: tuple[Mapping[str, Any], ...]
    digest: str
    """SHA-256 (hex) of the file's bytes."""


def load_prompts(name: str | Path) -> PromptSet:
    """Return the prompts of a file of this package, by its name, or of a user's, by its path.

    Raises:
        InputError: there is no such file, or it is malformed; names the file and the record.
    """
    path = _path(name)
    raw = _read(path)
    digest = hashlib.sha256(raw).hexdigest()
    if path.suffix.lower() == ".txt":
        return _plain(path, raw, digest)
    data = _object(raw, path)
    head = _head(data, path)
    prompts = tuple(_prompt(record, at, path) for at, record in enumerate(_list(data, "prompts", path)))
    _refuse_twice((prompt.key for prompt in prompts), "key", path)
    return PromptSet(**head, prompts=prompts, digest=digest)


def load_records(name: str | Path, needs: Mapping[str, type | tuple[type, ...]]) -> Records:
    """Return the records of a data file, each with at least the keys that `needs` names, of these types.

    Raises:
        InputError: there is no such file, or it is malformed; names the file and the record.
    """
    path = _path(name)
    raw = _read(path)
    data = _object(raw, path)
    records = _list(data, "records", path)
    for at, record in enumerate(records):
        for key, kind in needs.items():
            if key not in record:
                raise InputError(f"{path}: records[{at}]: it has no '{key}'")
            value = record[key]
            wanted = kind if isinstance(kind, tuple) else (kind,)
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in wanted):
                names = " or ".join(one.__name__ for one in wanted)
                raise InputError(f"{path}: records[{at}]: '{key}' is {type(value).__name__}, not {names}")
    return Records(**_head(data, path), records=tuple(records), digest=hashlib.sha256(raw).hexdigest())


def made(name: str, source: str, licence: str, prompts: Iterable[ProbePrompt], *of: str) -> PromptSet:
    """Return prompts that were made of something, with the digest of all their fields.

    Args:
        name: of the set.
        source: where they come from.
        licence: of the source.
        prompts: in order; of one key there may be several, such as its translations.
        of: digests of the files that they were made from.
    """
    prompts = tuple(prompts)
    fields = [[one.key, one.text, dict(one.labels), one.image_file, one.group] for one in prompts]
    text = json.dumps([*of, fields], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PromptSet(name=name, source=source, licence=licence, prompts=prompts, digest=digest)


def _path(name: str | Path) -> Path:
    own = DATA / name
    path = own if own.is_file() else Path(name).expanduser()
    if not path.is_file():
        ours = ", ".join(sorted(file.name for file in DATA.glob("*.json")))
        raise InputError(f"{name}: no such file of prompts, and none of this package's ({ours})")
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _plain(path: Path, raw: bytes, digest: str) -> PromptSet:
    try:
        lines = [" ".join(line.split()) for line in raw.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8 text") from error
    prompts = tuple(ProbePrompt(key=at, text=line, group=at) for at, line in enumerate(filter(None, lines)))
    if not prompts:
        raise InputError(f"{path}: holds no prompt")
    return PromptSet(name=path.stem, source=path.name, licence="not stated", prompts=prompts, digest=digest)


def _object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: not valid JSON at {where}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: the top level must be an object with {', '.join(HEAD)}")
    return data


def _head(data: Mapping[str, Any], path: Path) -> dict[str, str]:
    for key in HEAD:
        if not isinstance(data.get(key), str) or not data[key].strip():
            raise InputError(
                f"{path}: '{key}' must be a text; prompts are told with their source and licence"
            )
    return {key: data[key] for key in HEAD}


def _list(data: Mapping[str, Any], key: str, path: Path) -> Sequence[dict[str, Any]]:
    records = data.get(key)
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: '{key}' must be a list that is not empty")
    for at, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{path}: {key}[{at}] is no object")
    return records


def _prompt(record: Mapping[str, Any], at: int, path: Path) -> ProbePrompt:
    where = f"{path}: prompts[{at}]"
    unknown = sorted(record.keys() - {"key", "text", "labels", "image_file", "group"})
    if unknown:
        raise InputError(f"{where}: '{unknown[0]}' is no key of a prompt; put it into 'labels'")
    text, labels = record.get("text"), record.get("labels", {})
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: 'text' must be a text that is not empty")
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise InputError(f"{where}: 'labels' must be an object of texts")
    image_file = record.get("image_file", "")
    if not isinstance(image_file, str):
        raise InputError(f"{where}: 'image_file' must be a text")
    key = _whole(record, "key", at, where)
    return ProbePrompt(
        key=key,
        text=" ".join(text.split()),
        labels=labels,
        image_file=image_file,
        group=_whole(record, "group", key, where),
    )


def _whole(record: Mapping[str, Any], key: str, default: int, where: str) -> int:
    value = record.get(key, default)
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise InputError(f"{where}: '{key}' must be a whole number from 0 on")
    return value


def _refuse_twice(keys: Iterable[int], what: str, path: Path) -> None:
    seen: set[int] = set()
    for at, key in enumerate(keys):
        if key in seen:
            raise InputError(f"{path}: prompts[{at}]: {what} {key} is there twice")
        seen.add(key)
