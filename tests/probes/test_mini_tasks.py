"""Sentences of the mini world for the composition probe: each can be fulfilled, each can be missed."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from sd2eval.mini import DATA
from sd2eval.mini.captions import RELATION_PHRASES
from sd2eval.mini.world import NEVER_COUNTS, NEVER_OBJECTS, NEVER_STACKS, never_occurs
from sd2eval.probes import mini_tasks
from sd2eval.probes.base import ProbePrompt
from sd2eval.probes.composing import TASKS, judge, wanted_of
from sd2eval.probes.reading import words_of
from tests.probes.making import loaded

PROMPTS = mini_tasks.sentences(30, 3, 4)


def correct(prompt: ProbePrompt, labels: dict[str, str], rng: np.random.Generator) -> bool:
    """Whether a rendered scene of `labels` is judged to hold what the prompt asks for."""
    detector = loaded("mini_detector")
    found = detector.detect(mini_tasks.picture(labels, rng, 96)[None])[0]
    return judge(wanted_of(prompt.labels), found, 0.0).correct


def test_what_is_rendered_is_judged_right_and_what_is_spoiled_wrong() -> None:
    rng = np.random.default_rng(0)
    right = [correct(one, dict(one.labels), rng) for one in PROMPTS]
    wrong = [correct(one, mini_tasks.spoiled(one.labels, rng), rng) for one in PROMPTS]
    assert np.mean(right) >= 0.98
    assert np.mean(wrong) <= 0.02


def test_every_combination_that_never_occurs_is_asked_for_and_no_other_is_called_so() -> None:
    rng = np.random.default_rng(0)
    parts = Counter(one.labels["part"] for one in PROMPTS)
    assert parts["colors, never seen"] == 3 * len(NEVER_OBJECTS)
    assert parts["stack, never seen"] == parts["stack, seen"] == 3 * len(NEVER_STACKS)
    assert parts["counting, never seen"] == parts["counting, seen"] == 3 * len(NEVER_COUNTS)
    assert [parts[task] for task in TASKS] == [30] * 6
    for one in PROMPTS:
        never = never_occurs(mini_tasks.scene_of(one.labels, rng))
        if "never seen" in one.labels["part"] or one.labels["part"] == "card":
            assert never
        elif one.labels["part"] in ("colors", "stack, seen", "counting, seen", "color_attr"):
            assert not never


def test_every_word_is_one_of_the_worlds_captions() -> None:
    captions = json.loads((DATA / "annotations" / "captions_mini.json").read_text())["annotations"]
    known = {word for one in captions for word in words_of(one["caption"])}
    assert {word for one in PROMPTS for word in words_of(one.text)} <= known


def test_relations_are_said_as_the_worlds_captions_say_them() -> None:
    said = {one.labels["relation"] for one in PROMPTS if one.labels["task"] == "position"}
    assert said == set(mini_tasks.IN_WORLD)
    for one in PROMPTS:
        if relation := one.labels.get("relation"):
            phrases = RELATION_PHRASES[mini_tasks.IN_WORLD[relation]]
            first, second = one.text.split(next(phrase for phrase in phrases if phrase in one.text))
            assert one.labels["first"] in first
            assert one.labels["second"] in second.replace("sphere", "ball")


def test_the_cards_own_sentence_is_among_them() -> None:
    card = [one for one in PROMPTS if one.labels["part"] == "card"]
    assert len(card) == 4
    assert {one.text for one in card} == {"A red cube on top of a blue sphere."}


def test_keys_are_unique_and_the_order_does_not_depend_on_the_number() -> None:
    assert len({one.key for one in PROMPTS}) == len(PROMPTS)
    few = [one.text for one in mini_tasks.sentences(10, 3, 4) if one.labels["part"] == "colors"]
    many = [one.text for one in PROMPTS if one.labels["part"] == "colors"]
    assert many[:10] == few


@pytest.mark.parametrize("text", ["A cube and a cone", "Two rings", "An orange ball", "below"])
def test_sentences_read_as_english(text: str) -> None:
    assert any(text in one.text for one in mini_tasks.sentences(60, 1, 1))
