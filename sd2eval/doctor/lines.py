"""How findings look: one line each in a pipe, folded under their own text on a terminal."""

from __future__ import annotations

import shutil
import textwrap

from sd2eval.doctor.findings import PROBLEM, WARNING, Diagnosis, Finding

ENDLESS = 100_000
"""Columns where nobody reads on a terminal: nothing is folded."""
NARROW = 72
"""Below this width the text stands on lines of its own."""
LEVEL, CHECK = 9, 12
"""Columns of the first two words."""


def width() -> int:
    """Return the columns to print on: of the terminal, or what COLUMNS says; else endless."""
    return shutil.get_terminal_size((ENDLESS, 24)).columns


def show(finding: Finding, columns: int | None = None) -> None:
    """Print one finding."""
    print("\n".join(lines(finding, columns or width())), flush=True)


def lines(finding: Finding, columns: int) -> list[str]:
    """Return a finding in lines of at most that many columns; names and paths are never cut."""
    head = f"{finding.level:<{LEVEL}}{finding.check:<{CHECK}}"
    text = f"{finding.found} -> {finding.advice}" if finding.advice else finding.found
    if columns >= NARROW:
        return _folded(text, columns, head, " " * (LEVEL + CHECK))
    return [head.rstrip(), *_folded(text, columns, "  ", "  ")]


def summary(diagnosis: Diagnosis, columns: int) -> list[str]:
    """Return what the findings come to."""
    problems, warnings = (_counted(diagnosis.count(level), level) for level in (PROBLEM, WARNING))
    verdict = f"{problems}, {warnings}" + (
        "" if diagnosis.healthy else ": a sweep would not run here, or not rightly"
    )
    return [*_folded(f"plan: {diagnosis.plan}", columns, "", "  "), *_folded(verdict, columns, "", "  ")]


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}" + ("" if number == 1 else "s")


def _folded(text: str, columns: int, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )
