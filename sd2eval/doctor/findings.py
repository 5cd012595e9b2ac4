"""What a check found: one line of the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LEVELS = (OK, WARNING, PROBLEM)

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    check: str
    """Stable name of the check."""
    level: str
    """`ok`, `warning` (a sweep runs, worse or later) or `problem` (it does not, or not rightly)."""
    found: str
    advice: str = ""
    """What to do; empty where nothing is."""
    about: str = ""
    """The package, checkpoint, network, folder or device that it is about; empty for the machine."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order in which they were made."""

    plan: str
    """What they were made for, in words."""
    findings: list[Finding] = field(default_factory=list)

    def count(self, level: str) -> int:
        """Return how many findings have a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; there may be warnings."""
        return not self.count(PROBLEM)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "schema_version": SCHEMA_VERSION,
            "healthy": self.healthy,
            "problems": self.count(PROBLEM),
            "warnings": self.count(WARNING),
            "plan": self.plan,
            "findings": [asdict(finding) for finding in self.findings],
        }


Findings = Iterable[Finding]
OnFinding = Callable[[Finding], object]


def reason(error: BaseException) -> str:
    """Return an error in one line: an OSError's own words, another's type and message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
