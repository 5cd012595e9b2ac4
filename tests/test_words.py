"""Words after a verb are understood as typed, or refused by name."""

from __future__ import annotations

import pytest

from sd2eval.errors import InputError
from sd2eval.words import number, one_of, parse, truth

KEYS = ("root", "keep_archives")


def test_words_are_positional_or_settings_in_any_order() -> None:
    words = ["fetch", "root=a=b", "coco", "keep_archives=true"]
    assert parse(words, KEYS) == (["fetch", "coco"], {"root": "a=b", "keep_archives": "true"})
    assert parse([], ()) == ([], {})


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("rot=x", ("'rot'", "no such key", "did you mean 'root'?", "root, keep_archives")),
        ("=x", ("''", "no such key")),
        ("root=", ("root=", "a value is needed")),
        ("--root", ("'--root'", "KEY=VALUE", "--help")),
        ("--root=x", ("'--root=x'", "KEY=VALUE")),
    ],
)
def test_a_word_that_is_not_understood_is_named(word: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        parse([word], KEYS)
    for part in parts:
        assert part in str(error.value)


def test_a_key_is_given_once() -> None:
    with pytest.raises(InputError, match="root=b: root is given twice"):
        parse(["root=a", "root=b"], KEYS)


def test_a_choice_is_one_of_those_there_are() -> None:
    assert one_of("fetch", ("fetch", "verify"), "action") == "fetch"
    with pytest.raises(InputError, match=r"'zzz': no such action \(actions: fetch, verify\)"):
        one_of("zzz", ("fetch", "verify"), "action")
    with pytest.raises(InputError, match=r"no such thing \(things: none\)"):
        one_of("zzz", (), "thing")


def test_truth_is_written_true_or_false() -> None:
    assert truth({"keep": "true"}, "keep", default=False)
    assert not truth({"keep": "false"}, "keep", default=True)
    assert truth({}, "keep", default=True)
    with pytest.raises(InputError, match="keep=yes: true or false is needed"):
        truth({"keep": "yes"}, "keep", default=True)


def test_a_number_is_a_number() -> None:
    assert number({"level": "0.9"}, "level", 0.5) == 0.9
    assert number({}, "level", 0.5) == 0.5
    with pytest.raises(InputError, match="level=high: a number is needed"):
        number({"level": "high"}, "level", 0.5)
