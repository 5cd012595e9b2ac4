"""Words that were asked for against what was read."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd2eval.probes.reading import compare, edits, words_of
from sd2eval.probes.sightings import Word

WORDS = st.text(alphabet="abc", max_size=6)


def lines(*texts: str) -> list[Word]:
    return [Word(text=text, confidence=1, box=(0, 0, 1, 1)) for text in texts]


def by_definition(first: str, second: str) -> int:
    """Levenshtein's distance by its recursion, letter by letter."""

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        last = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(last, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


@given(WORDS, WORDS)
def test_edits_are_levenshteins_distance(first: str, second: str) -> None:
    assert edits(first, second) == by_definition(first, second)


def test_known_distances() -> None:
    assert edits("kitten", "sitting") == 3
    assert edits("", "abc") == edits("abc", "") == 3
    assert edits("flaw", "lawn") == 2


def test_words_have_no_case_no_signs_and_no_zero() -> None:
    assert words_of("Fresh, BREAD! (2.50)") == ["fresh", "bread", "2", "5o"]
    assert words_of("G0") == ["go"]
    assert words_of("...") == []


@pytest.mark.parametrize(
    ("wanted", "read", "errors"),
    [
        ("FRESH BREAD", ["fresh bread"], [0, 0]),
        ("FRESH BREAD", ["BREAD", "FRESH"], [0, 0]),  # in any order
        ("FRESH BREAD", ["sale", "fresh", "bread", "today"], [0, 0]),  # what else is there does not count
        ("FRESH BREAD", ["FRESHBREAD"], [5, 5]),  # run together it is neither word
        ("LIBRARY", ["LIB", "RARY"], [0]),  # a word that was split
        ("FRESH BREAD", ["FRESH BRAED"], [0, 2]),
        ("OPEN", [], [4]),
        ("OPEN", ["XXXXXXXXXXXX"], [4]),  # never more than its letters
    ],
)
def test_each_word_is_compared_with_what_comes_nearest(
    wanted: str, read: list[str], errors: list[int]
) -> None:
    found = compare(wanted, lines(*read))
    assert [one.errors for one in found] == errors
    assert [one.exact for one in found] == [error == 0 for error in errors]
    assert all(0 <= one.error_rate <= 1 for one in found)
