"""Values as people type them, quoted where Hydra's grammar would refuse them or read something else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from sd2eval.config.schema import ProbeConfig, SweepConfig, schema_keys

COMPONENTS = "checkpoint.components."
EXTRACTORS = "protocol.extractors."
PROBE_NETWORKS = ("components.", "extractors.")
OPEN = ("precision.", "precision={", EXTRACTORS, *PROBE_NETWORKS)
"""Beginnings of words whose keys the schema does not know."""


def as_typed(words: Sequence[str], *, many: bool = False) -> list[str]:
    """Return overrides that mean to Hydra what was typed: `data.root=~/p (1)` needs no quotes.

    A value that Hydra cannot read is quoted, except for keys that hold a list. In a key that holds text, so
    is a number (`12e4` may be a commit) or, unless `many`, a value with a comma; a leading `~` is the home
    folder. Lists, dictionaries, null, interpolations and quoted values stay as they are.

    Args:
        words: overrides, such as `prompts.n=8`.
        many: a comma separates the values of several runs, as with Hydra's --multirun.
    """
    return [_as_typed(_added(word), many) for word in words]


def _added(word: str) -> str:
    """Return a word whose key may be new with the `++` that Hydra wants for one."""
    return f"++{word}" if word.startswith(OPEN) else word


def _as_typed(word: str, many: bool) -> str:
    name, sign, value = word.partition("=")
    key = name.lstrip("+")
    if not sign or key in _LISTS or not re.match(r"~?[\w.@/]", key):
        return word
    text = key in _TEXTS or key.startswith(COMPONENTS)
    if key.startswith((EXTRACTORS, *PROBE_NETWORKS)):  # has the keys of a role
        text = f"protocol.distance.{key.rpartition('.')[2]}" in _TEXTS
    if text and value.startswith("~"):
        value = _at_home(value)
        word = f"{name}={value}"
    parsed = _parsed(word)
    if parsed is None:
        return word if value.startswith(("[", "{")) and not text else f"{name}={quote(value)}"
    return f"{name}={quote(value)}" if text and _taken_for_more(parsed, many) else word


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _taken_for_more(parsed: Override, many: bool) -> bool:
    """Return whether Hydra would read something else into a text than what was typed."""
    if parsed.is_choice_sweep():
        return not many and bool(getattr(parsed.value(), "simple_form", False))
    return isinstance(parsed.value(), bool | int | float)


def _at_home(value: str) -> str:
    try:
        return str(Path(value).expanduser())
    except RuntimeError:  # nobody of that name has a home here
        return value


def quote(value: str) -> str:
    """Return a value in single quotes, in which Hydra changes nothing."""
    inside = re.sub(r"(\\*)'", lambda found: 2 * found[1] + r"\'", value)
    backslashes = len(inside) - len(inside.rstrip("\\"))
    return f"'{inside}{backslashes * chr(92)}'"


def _kinds() -> tuple[frozenset[str], frozenset[str]]:
    """Return the keys of the schema that hold a text, and those that hold a list."""
    texts, lists = set(), set()
    schemas = (ProbeConfig, SweepConfig)
    for key, kind in [(key, _type_of(key, one)) for one in schemas for key, _ in schema_keys(one)]:
        if kind in (str, str | None):
            texts.add(key)
        elif getattr(kind, "__origin__", None) is list:
            lists.add(key)
    return frozenset(texts), frozenset(lists)


def _type_of(key: str, schema: object) -> object:
    kind = schema
    for part in key.split("."):
        groups = [kind, *getattr(kind, "__args__", ())]
        group = next(group for group in groups if hasattr(group, "__dataclass_fields__"))
        kind = get_type_hints(group)[part]
    return kind


_TEXTS, _LISTS = _kinds()
