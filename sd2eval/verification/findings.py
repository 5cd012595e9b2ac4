"""What is found in a run folder: one line each, and what it takes to make it whole. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sd2eval.transfer.digests import UNREADABLE

State = Literal["damaged", "unfinished", "left over"]
Part = Literal[
    "record", "digests", "prompts", "reference", "session", "shard", "png", "sheet", "table", "extra"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One file or folder that is not as it should be."""

    path: str
    """Relative to the run folder."""
    what: str
    """Follows the path in a sentence."""
    part: Part
    state: State = "damaged"
    shard: str = ""
    """`<checkpoint>/<block>` that it belongs to, for a shard's own files and its PNGs."""
    sha256: str = ""
    """Of the pixels that a PNG should have."""

    @property
    def line(self) -> str:
        """The path and what is wrong with it."""
        return f"{self.path}: {self.what}"

    @property
    def unread(self) -> bool:
        """Whether nobody knows if it is damaged: it may not be read, or a disk or network fails just now."""
        return self.what.startswith(UNREADABLE)


@dataclass(frozen=True)
class Verification:
    """The answer to: is this run folder whole?"""

    path: Path
    shards: int = 0
    images: int = 0
    """That were drawn, whether or not their PNGs are kept."""
    pngs: int = 0
    """That were read."""
    findings: Sequence[Finding] = ()
    unchecked: Sequence[str] = ()
    """What could not be checked, one line each, and why."""
    was_finished: bool = False
    """Whether results of every cell were written once."""
    repaired: Sequence[str] = field(default=())
    """What a repair did, one line each."""

    def of(self, state: State) -> list[Finding]:
        """Return the findings of one state."""
        return [finding for finding in self.findings if finding.state == state]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged or lost; an unfinished run is whole."""
        return not self.of("damaged")

    @property
    def summary(self) -> str:
        """The answer in one sentence."""
        read = f"{self.shards:,} shards, {self.images:,} images, {self.pngs:,} PNGs"
        if not self.whole:
            return (
                f"Damaged: {counted(len(self.of('damaged')), 'finding')} in {self.path} ({read} looked at)."
            )
        if self.of("unfinished"):
            return f"Not finished, and whole so far: nothing in {self.path} is damaged ({read})."
        return f"Whole: every digest of {self.path} is right ({read})."


def counted(count: int, noun: str) -> str:
    """Return `1 finding`, `2 findings`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
