"""What was written against what is read: words, letters, and how many edits lie between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sd2eval.probes.sightings import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRead:
    """One wanted word, and what came nearest to it."""

    wanted: str
    nearest: str
    """Empty where nothing was read."""
    errors: int
    """Edits (a letter inserted, left out or replaced) between the two, at most the letters of `wanted`."""

    @property
    def exact(self) -> bool:
        """Whether the word is there, letter by letter."""
        return self.errors == 0

    @property
    def error_rate(self) -> float:
        """Edits per letter, 0..1; 1 where nothing like it was read."""
        return self.errors / len(self.wanted)


def words_of(text: str) -> list[str]:
    """Return the words of a text: letters and digits without case; everything else only separates.

    A zero counts as the letter O: in most fonts nobody could tell which of them stands on a sign.
    """
    kept = "".join(sign if sign.isalnum() else " " for sign in text.casefold())
    return kept.replace("0", "o").split()


def compare(wanted: str, read: Sequence[Word]) -> list[WordRead]:
    """Return for each wanted word what comes nearest to it in all that was read.

    What else is in the picture does not count against it. A word that a reader splits is tried too:
    neighbours are compared joined as well.

    Args:
        wanted: the text that was asked for.
        read: lines or words.
    """
    seen = [candidate for line in read for candidate in _candidates(words_of(line.text))]
    seen += _candidates([word for line in read for word in words_of(line.text)])
    return [_nearest(word, seen) for word in words_of(wanted)]


def edits(first: str, second: str) -> int:
    """Return the Levenshtein distance: the fewest insertions, deletions and replacements of one letter."""
    before = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        now = [row]
        for column, right in enumerate(second, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]


def _candidates(words: list[str]) -> list[str]:
    return [*words, *("".join(pair) for pair in pairwise(words))]


def _nearest(word: str, seen: Sequence[str]) -> WordRead:
    best = min(seen, key=lambda one: edits(word, one), default="")
    return WordRead(wanted=word, nearest=best, errors=min(edits(word, best), len(word)))
