"""The installed packages against the bounds in the metadata of the installed sd2eval."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding, reason

DISTRIBUTION = "sd2eval"
IMPORTED = ("sd2eval.sweep", "sd2eval.plots")
"""What a sweep imports, and with it every library that it needs."""


def bounds() -> Iterator[Finding]:
    """Say which packages are missing or outside the bounds; one line where all are right."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        advice = "install sd2eval's packages: pip install -e . (or make setup)"
        yield Finding("packages", PROBLEM, "packaging is not installed", advice, about="packaging")
        return
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        advice = "install it, so that its bounds are known: pip install -e . (or make setup)"
        yield Finding("packages", WARNING, "sd2eval runs from a folder and is not installed", advice)
        return
    wanted = [line for line in map(Requirement, lines) if line.marker is None or line.marker.evaluate()]
    wrong = [finding for finding in map(_wrong, wanted) if finding]
    yield from wrong
    if not wrong:
        yield Finding("packages", OK, f"all {len(wanted)} required ones are here, within their bounds")


def _wrong(wanted: object) -> Finding | None:
    """Return what is wrong with one requirement, or None."""
    from packaging.requirements import Requirement

    assert isinstance(wanted, Requirement)
    name, advice = wanted.name, f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding("packages", PROBLEM, f"{name} is not installed", advice, about=name)
    if not wanted.specifier.contains(found, prereleases=True):
        text = f"{name} {found} is outside {wanted.specifier}"
        return Finding("packages", PROBLEM, text, advice, about=name)
    return None


def libraries() -> Iterator[Finding]:
    """Import what a sweep imports; asked only where torch was seen to be importable in another process."""
    begin = time.perf_counter()
    try:
        for name in IMPORTED:
            import_module(name)
    except Exception as error:  # whatever a broken package raises
        advice = "install the packages again: pip install --force-reinstall -e . (or make setup)"
        yield Finding("libraries", PROBLEM, f"cannot be imported: {reason(error)}", advice)
        return
    yield Finding(
        "libraries", OK, f"all that a sweep imports was imported in {time.perf_counter() - begin:.1f} s"
    )
