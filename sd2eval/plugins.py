"""Metrics, extractors and settings found by where they lie: in this package, or in one that declares them.

A module in `sd2eval.metrics.declared` with `METRICS`, or in `sd2eval.extractors` with `load`, is found by its
name.
Another distribution adds its own by entry points (docs/plugins.md):

    [project.entry-points."sd2eval.metrics"]
    mine = "mine.metrics"          # a module with METRICS
    [project.entry-points."sd2eval.extractors"]
    my_kind = "mine.extractor"     # a module with load(config, device); the name is the `kind` in YAML
    [project.entry-points."sd2eval.conf"]
    mine = "mine.conf"             # a package with YAML groups: extractor/, protocol/, checkpoint/, ...

Nothing is imported here but the standard library; a module is imported when it is used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from sd2eval.errors import InputError

GROUPS = ("sd2eval.metrics", "sd2eval.extractors", "sd2eval.conf")
NOT_A_KIND = ("base", "lpips")
"""Modules of `sd2eval.extractors` that hold what the kinds share."""


@cache
def extractor_kinds() -> dict[str, str]:
    """Return the module of every kind of extractor, the package's own first.

    Raises:
        InputError: two packages claim the same kind.
    """
    own = {name: f"sd2eval.extractors.{name}" for name in _modules("extractors") if name not in NOT_A_KIND}
    return _joined(own, "sd2eval.extractors")


@cache
def metric_modules() -> dict[str, str]:
    """Return the modules that declare metrics, by name, the package's own first.

    Raises:
        InputError: two packages use the same name.
    """
    own = {name: f"sd2eval.metrics.declared.{name}" for name in _modules("metrics/declared")}
    return _joined(own, "sd2eval.metrics")


@cache
def conf_packages() -> list[str]:
    """Return the packages besides `sd2eval.conf` that hold YAML settings."""
    return [entry.value for entry in sorted(entry_points(group="sd2eval.conf"), key=lambda entry: entry.name)]


def load(module: str) -> ModuleType:
    """Import a plug-in's module.

    Raises:
        InputError: it is another package's and cannot be imported; says which and why.
    """
    if module.startswith("sd2eval."):
        return import_module(module)
    try:
        return import_module(module)
    except Exception as error:  # whatever a foreign module does when imported
        raise InputError(f"plug-in {module}: cannot be imported ({type(error).__name__}: {error})") from error


def _modules(folder: str) -> list[str]:
    """Return the names of the modules in a folder of this package; nothing is imported."""
    files = Path(__file__).parent.joinpath(folder).glob("*.py")
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def _joined(own: dict[str, str], group: str) -> dict[str, str]:
    found = dict(own)
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        if entry.name in found:
            raise InputError(
                f"entry point {group}: '{entry.name}' is both {found[entry.name]} and {entry.value}"
            )
        found[entry.name] = entry.value
    return found
