"""GenEval's rules in closed form: what counts, what has the colour, who is where."""

from __future__ import annotations

import pytest

from sd2eval.errors import InputError
from sd2eval.probes.composing import Thing, Wanted, judge, needed, relations, wanted_of
from sd2eval.probes.sightings import Found


def box(
    label: str, x: float = 0, y: float = 0, *, size: float = 10, score: float = 0.9, colour: str = ""
) -> Found:
    half = size / 2
    return Found(label=label, score=score, box=(x - half, y - half, x + half, y + half), colour=colour)


def asked(task: str, *things: Thing, relation: str = "") -> Wanted:
    return Wanted(task=task, things=things, relation=relation)


CAT, DOG = Thing(label="cat"), Thing(label="dog")


def test_an_object_counts_only_above_the_threshold() -> None:
    one = asked("single_object", CAT)
    assert judge(one, [box("cat", score=0.31)], 0.3).correct
    assert not judge(one, [box("cat", score=0.3)], 0.3).correct
    assert judge(one, [box("dog")], 0.3).reason == "no cat"


def test_two_objects_must_both_be_there_and_others_may() -> None:
    two = asked("two_object", CAT, DOG)
    assert judge(two, [box("cat"), box("dog"), box("dog"), box("cup")], 0.3).correct
    half = judge(two, [box("cat"), box("cat")], 0.3)
    assert (half.correct, half.reason, half.credit) == (False, "no dog", 0.5)


@pytest.mark.parametrize(("number", "correct"), [(0, False), (1, False), (2, True), (3, False), (4, False)])
def test_counting_needs_exactly_as_many(number: int, correct: bool) -> None:
    verdict = judge(asked("counting", Thing(label="cat", count=2)), [box("cat")] * number, 0.3)
    assert verdict.correct is correct
    assert verdict.credit == (1.0 if correct else 0.5 if number else 0.0)


def test_unsure_objects_are_not_counted() -> None:
    found = [box("cat", score=0.95), box("cat", score=0.92), box("cat", score=0.5)]
    assert judge(asked("counting", Thing(label="cat", count=2)), found, 0.9).correct


def test_the_surest_object_must_have_the_colour() -> None:
    red = asked("colors", Thing(label="cat", colour="red"))
    found = [box("cat", score=0.6, colour="red"), box("cat", score=0.9, colour="blue")]
    assert judge(red, found, 0.3).reason == "cat is blue, not red"
    assert judge(red, found[:1], 0.3).correct
    assert needed(red, found, 0.3) == [found[1]]


def test_everything_that_is_wrong_is_said() -> None:
    stack = asked("stack", Thing(label="cat", colour="red"), Thing(label="dog"))
    assert judge(stack, [box("cat", colour="blue")], 0.3).reason == "cat is blue, not red; no dog"


def test_each_thing_must_have_its_own_colour() -> None:
    both = asked("color_attr", Thing(label="cat", colour="red"), Thing(label="dog", colour="blue"))
    assert judge(both, [box("cat", colour="red"), box("dog", colour="blue")], 0.3).correct
    swapped = judge(both, [box("cat", colour="blue"), box("dog", colour="red")], 0.3)
    assert (swapped.correct, swapped.credit) == (False, 0.0)
    assert judge(both, [box("cat", colour="red"), box("dog", colour="red")], 0.3).credit == 0.5


@pytest.mark.parametrize(
    ("x", "y", "where"),
    [
        (-30, 0, {"left of"}),
        (30, 0, {"right of"}),
        (0, -30, {"above"}),  # y points down
        (0, 30, {"below"}),
        (-30, -30, {"left of", "above"}),  # each is (30 - 2) / 42.4 = 0.66 of the way
        (-30, -14, {"left of"}),  # (14 - 2) / 33.1 = 0.36
        (1.9, 0, set()),  # less than a tenth of both widths
        (0, 0, set()),
        (3, 0, set()),  # (3 - 2) / 3 = 0.33
        (5, 0, {"right of"}),  # (5 - 2) / 5 = 0.6
    ],
)
def test_where_one_object_is_seen_from_another(x: float, y: float, where: set[str]) -> None:
    assert relations(box("cat", x, y), box("dog")) == where


def test_the_place_is_that_of_the_surest_of_each_kind() -> None:
    left = asked("position", CAT, DOG, relation="left of")
    assert judge(left, [box("cat", -30), box("dog"), box("cat", 30, score=0.5)], 0.3).correct
    wrong = judge(left, [box("cat", 30), box("dog")], 0.3)
    assert wrong.reason == "cat is right of dog, not left of"
    assert wrong.credit == 0.5
    assert judge(left, [box("cat", 0), box("dog")], 0.3).reason == "cat is no clear side of dog, not left of"
    assert judge(left, [box("cat", -30)], 0.3).credit == 0.25


def test_labels_become_what_is_wanted() -> None:
    labels = {
        "task": "color_attr",
        "first": "cat",
        "first_colour": "red",
        "second": "dog",
        "second_colour": "blue",
    }
    first, second = wanted_of(labels).things
    assert (first.label, first.colour, second.label, second.colour) == ("cat", "red", "dog", "blue")
    assert wanted_of({"task": "counting", "first": "cat", "count": "3"}).things == (
        Thing(label="cat", count=3),
    )


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"task": "three_objects", "first": "cat"},
        {"task": "counting"},
        {"task": "counting", "first": "cat", "count": "many"},
        {"task": "position", "first": "cat", "second": "dog", "relation": "beside"},
    ],
)
def test_labels_that_ask_for_nothing_known_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InputError, match="a composition prompt"):
        wanted_of(labels)
