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
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from sd2eval.errors import InputError

GROUPS = ("sd2eval.metrics", "sd2eval.extractors", "sd2eval.conf")
NOT_A_KIND = ("base", "lpips")
"""Modules of `sd2eval.extractors` that hold what the kinds share."""
OWN_CONF = "sd2eval.conf"


class Origin(NamedTuple):
    """The distribution that declares a module."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@cache
def extractor_kinds() -> dict[str, str]:
    """Return the module of every kind of extractor, the package's own first.

    Raises:
        InputError: two packages claim the same kind.
    """
    found = {name: f"sd2eval.extractors.{name}" for name in _modules("extractors") if name not in NOT_A_KIND}
    for entry in _entries("sd2eval.extractors"):
        if entry.name in found:
            before = describe(found[entry.name])
            raise InputError(
                f"plug-in {describe(entry.value)}: extractor kind '{entry.name}' exists already, in {before}"
            )
        found[entry.name] = entry.value
    return found


@cache
def metric_modules() -> dict[str, str]:
    """Return the modules that declare metrics, the package's own first; the keys only tell them apart."""
    own = {name: f"sd2eval.metrics.declared.{name}" for name in _modules("metrics/declared")}
    return own | {f"{_distribution(e)}/{e.name}": e.value for e in _entries("sd2eval.metrics")}


@cache
def conf_packages() -> list[str]:
    """Return the packages besides `sd2eval.conf` that hold YAML settings.

    Raises:
        InputError: one cannot be imported, holds no settings, or some that exist already.
    """
    own = _settings(OWN_CONF)
    groups = {name.partition("/")[0] for name in own if "/" in name}
    owners = dict.fromkeys([*own, *(f"{group}/schema.yaml" for group in groups)], "sd2eval")
    packages = [entry.value for entry in _entries("sd2eval.conf")]
    for package in packages:
        found = _settings(package)
        if not found:
            raise InputError(
                f"plug-in {describe(package)}: holds no settings, such as extractor/NAME.yaml (package-data?)"
            )
        for name in found:
            if name in owners:
                raise InputError(f"plug-in {describe(package)}: {name} exists already, in {owners[name]}")
            owners[name] = describe(package)
    return packages


def origin(module: str) -> Origin | None:
    """Return the distribution that declares a module, or None for the package's own."""
    return _origins().get(module)


def describe(module: str) -> str:
    """Return a module as messages name it: `mine.metrics (mine 1.0)`."""
    found = origin(module)
    return f"{module} ({found})" if found else module


def load(module: str) -> ModuleType:
    """Import a plug-in's module.

    Raises:
        InputError: it is another package's and cannot be imported; says which and why.
    """
    if module.startswith("sd2eval."):
        return import_module(module)
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # whatever a foreign module does when imported
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"plug-in {describe(module)}: cannot be imported ({reason})") from error


def _entries(group: str) -> list[EntryPoint]:
    """Return the entry points of a group, in an order that does not depend on the search path."""
    return sorted(entry_points(group=group), key=lambda entry: (_distribution(entry), entry.name))


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""


@cache
def _origins() -> dict[str, Origin]:
    return {
        entry.value: Origin(entry.dist.name, entry.dist.version)
        for group in GROUPS
        for entry in _entries(group)
        if entry.dist
    }


def _modules(folder: str) -> list[str]:
    """Return the names of the modules in a folder of this package; nothing is imported."""
    found = Path(__file__).parent.joinpath(folder).glob("*.py")
    return sorted(file.stem for file in found if not file.stem.startswith("_"))


def _settings(package: str) -> list[str]:
    """Return the YAML files of a package, as `group/name.yaml`."""
    return sorted(_yaml(files(load(package)), ""))


def _yaml(folder: Traversable, prefix: str) -> list[str]:
    found: list[str] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _yaml(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            found.append(f"{prefix}{entry.name}")
    return found
