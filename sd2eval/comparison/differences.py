"""What differs between two compared runs: every setting, input and library that could be the cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sd2eval.comparison.pairing import Pair, Side
from sd2eval.records import RunInfo

_NOT_A_CAUSE = ("guidance_scales", "noise_levels", "prompts.n", "prompts.seed", "protocol.metrics")
"""What was run, not how: the cells, captions and metrics that are compared are the same on both sides."""
_OF_A_CHECKPOINT = ("source", "file", "revision", "components", "lora")
"""Where weights came from: worth reading only if they are not the same."""
_SHORT = 12
"""Hexadecimal digits of a digest that are shown."""


class Differing(NamedTuple):
    """A field with its values in both runs."""

    field: str
    a: Any
    b: Any


def what_differs(a: Side, b: Side, cells: list[Pair]) -> list[Differing]:
    """Return every recorded field that differs between the cells that are compared."""
    pairs = list(dict.fromkeys((left.checkpoint, right.checkpoint) for left, right in cells))
    found = [item for pair in pairs for item in _checkpoints(a, b, *pair, several=len(pairs) > 1)]
    scales = dict.fromkeys((left.guidance_scale, right.guidance_scale) for left, right in cells)
    found += [Differing("guidance scale", left, right) for left, right in scales if left != right]
    return [*found, *_changed(_settings(a.info), _settings(b.info))]


def _settings(info: RunInfo) -> dict[str, Any]:
    """Return what holds for all cells of a run."""
    fields = {
        key: value
        for key, value in info.identity_fields.items()
        if key not in _NOT_A_CAUSE and not key.startswith(("checkpoints.", "digests.", "data."))
    }
    captions = {"digests.data/captions": info.digests.get("data/captions", "")[:_SHORT]}
    code = {f"versions.{name}": version for name, version in info.versions.items()}
    commit = {"git.commit": str(info.git.get("commit", ""))[:_SHORT], "git.dirty": info.git.get("dirty")}
    return fields | captions | code | commit


def _checkpoints(a: Side, b: Side, left: str, right: str, *, several: bool) -> Iterator[Differing]:
    """Yield what differs between two checkpoints; each field says whose it is where there are several."""
    first, second = a.definition(left), b.definition(right)
    weights = [side.info.digests.get(f"weights/{name}") for side, name in ((a, left), (b, right))]
    if weights[0] == weights[1]:
        first, second = (_without(fields, _OF_A_CHECKPOINT) for fields in (first, second))
    else:
        first, second = (_flat(fields) for fields in (first, second))
        yield Differing(_of(left, "weights", several), *(str(digest)[:_SHORT] for digest in weights))
    for field, x, y in _changed(_without(first, ("name",)), _without(second, ("name",))):
        yield Differing(_of(left, field, several), x, y)


def _of(checkpoint: str, field: str, several: bool) -> str:
    return f"{checkpoint}: {field}" if several else f"checkpoint.{field}"


def _flat(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a definition with a field for each component."""
    parts = {f"components.{name}": source for name, source in (definition.get("components") or {}).items()}
    return _without(definition, ("components",)) | parts


def _without(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}


def _changed(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Differing]:
    for key in dict.fromkeys([*a, *b]):
        if a.get(key) != b.get(key):
            yield Differing(key, a.get(key), b.get(key))
