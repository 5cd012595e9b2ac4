"""Which probes there are: one module each in `sd2eval.probes.declared`, found by its file name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.probes.base import Probe
from sd2eval.words import one_of

ORDER = (
    "photorealism",
    "legible_text",
    "composition",
    "people",
    "languages",
    "autoencoder",
    "safety",
    "default_culture",
    "social_bias",
)
"""The order of the card's sentences; others come after them."""
ALL = "all"


def names() -> list[str]:
    """Return the names of all probes, in the card's order; nothing is imported."""
    found = {file.stem for file in Path(__file__).parent.joinpath("declared").glob("[!_]*.py")}
    return [*(name for name in ORDER if name in found), *sorted(found - set(ORDER))]


def chosen(words: Sequence[str]) -> list[str]:
    """Return the probes that words on the command line name, each once, in the card's order.

    Raises:
        InputError: none is named, or one that does not exist.
    """
    have = names()
    if not words:
        raise InputError(f"probe: which? all, or some of: {', '.join(have)}")
    for word in words:
        one_of(word, (ALL, *have), "probe")
    return [name for name in have if ALL in words or name in words]


def find(name: str) -> Probe:
    """Import and return a probe."""
    probe: Probe = import_module(f"sd2eval.probes.declared.{name}").PROBE
    assert probe.name == name, f"{name}.py declares the probe '{probe.name}'"
    return probe
