"""Rendered scenes that hold what was asked for, or not: the probe must tell how many do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sd2eval.probes import mini_tasks
from sd2eval.probes.base import ProbePrompt, Row
from sd2eval.probes.composing import TASKS, wanted_of
from sd2eval.probes.declared import composition
from sd2eval.probes.declared.composition import overall
from sd2eval.probes.prompt_sets import load_prompts
from sd2eval.probes.sightings import Found
from tests.probes.making import loaded
from tests.probes.rendering import RenderingBench, component


def bench(right: float, **changed: object) -> RenderingBench:
    """Draws about a share `right` of each part as asked for, the others with one attribute changed."""
    rng = np.random.default_rng(5)
    seen: dict[str, int] = {}

    def picture(prompt: ProbePrompt) -> np.ndarray:
        part = prompt.labels["part"]
        seen[part] = seen.get(part, 0) + 1
        keeps = math.floor(seen[part] * right) > math.floor((seen[part] - 1) * right)
        return mini_tasks.picture(prompt.labels if keeps else mini_tasks.spoiled(prompt.labels, rng), rng, 64)

    return RenderingBench(
        "composition", picture, changed={"n": 10, "rare": 2, "card": 4, "tests": 1} | changed
    )


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_the_share_of_right_pictures_is_found_in_every_part(right: float) -> None:
    used = bench(right)
    answer = composition.measure(used, used.checkpoint)
    rates = {row.part: row for row in answer.rows if row.metric == "correct_rate"}
    assert set(TASKS) < set(rates)
    for row in rates.values():
        assert row.low <= right <= row.high, row
        if row.n >= 10:
            assert row.value == pytest.approx(right, abs=0.15)
    (score,) = [row for row in answer.rows if row.metric == "geneval_score"]
    assert score.low <= right <= score.high
    assert score.n == 60
    assert [tile.good for tile in answer.tiles].count(True) == pytest.approx(right * len(answer.tiles), abs=6)


def test_every_wrong_picture_has_its_reason() -> None:
    used = bench(0.0)
    for tile in composition.measure(used, used.checkpoint).tiles:
        assert tile.found != "right" or tile.good


def test_pictures_of_one_sentence_are_one_observation() -> None:
    """One of the two combinations of colours always comes out, the other one never: 8 pictures say little."""
    rng = np.random.default_rng(6)

    def picture(prompt: ProbePrompt) -> np.ndarray:
        never = prompt.labels["part"] == "colors, never seen"
        wrong = never and prompt.labels["first"] == "cone"
        return mini_tasks.picture(mini_tasks.spoiled(prompt.labels, rng) if wrong else prompt.labels, rng, 64)

    changed = {"n": 31, "rare": 4, "card": 4, "tests": 1}
    used = RenderingBench("composition", picture, changed=changed)
    asked = composition.prompts(used).prompts
    for one in asked:
        assert {other.group for other in asked if other.text == one.text} == {one.group}
    answer = composition.measure(used, used.checkpoint)
    rates = {row.part: row for row in answer.rows if row.metric == "correct_rate"}
    never = rates["colors, never seen"]
    assert never.value == pytest.approx(0.5, abs=0.1)
    assert never.low < 0.05
    assert never.high > 0.95
    assert never.note.startswith("8 pictures of 2 sentences; ")
    assert any("(colors), 2 sentences with 8 pictures in all: " in one for one in answer.sentences)
    assert "pictures of 30 sentences" in rates["colors"].note  # one of them comes again
    assert "pictures of" not in rates["position"].note
    assert rates["card"].note == "4 pictures of one sentence, and of no other; seen in 100.0%, corrected"


def test_only_different_sentences_are_different_groups() -> None:
    card = [one for one in composition.prompts(published(None, None)).prompts if one.labels["part"] == "card"]
    assert len(card) == 5
    assert len({one.group for one in card}) == 1


def row(part: str, value: float) -> Row:
    reach = 0.1
    return Row(
        part=part,
        metric="correct_rate",
        value=value,
        stderr=0.05,
        low=value - reach,
        high=value + reach,
        n=10,
        direction="higher",
        unit="",
        error=0.0,
    )


def test_the_score_is_the_unweighted_mean_of_six_tasks() -> None:
    tasks = [
        row(task, value) for task, value in zip(TASKS, (0.98, 0.51, 0.44, 0.85, 0.07, 0.17), strict=True)
    ]
    score = overall(tasks, "x")
    assert score.value == pytest.approx(0.50, abs=0.005)  # what GenEval reports of Stable Diffusion 2.1
    assert score.stderr == pytest.approx(0.05 / math.sqrt(6))
    missing = overall([*tasks[:5], row(TASKS[5], math.nan)], "x")
    assert math.isnan(missing.value)
    assert missing.note == "no number for color_attr"


def test_a_comparison_without_a_number_is_said_in_words() -> None:
    rows = [row("colors", math.nan), row("colors, never seen", 0.5)]
    (said,) = [one for one in composition._sentences(rows, {"colors, never seen": 2}) if "never held" in one]
    assert said.endswith("; of comparable ones that it did hold there is no number to compare with.")


def test_the_published_prompts_ask_for_what_the_detector_knows() -> None:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

    from sd2eval.probes.components.clip_colour import COLOURS

    known = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]
    prompts = [one for one in load_prompts("composition.json").prompts if one.labels["part"] != "card"]
    for one in prompts:
        wanted = wanted_of(one.labels)
        assert all(thing.label in known for thing in wanted.things), one
        assert all(thing.colour in ("", *COLOURS) for thing in wanted.things), one
        assert all(thing.colour in one.text for thing in wanted.things)
    single = {one.labels["first"] for one in prompts if one.labels["task"] == "single_object"}
    assert len(single) == 80
    assert len({one.text for one in prompts}) == len(prompts)


def published(detect, colours) -> RenderingBench:  # type: ignore[no-untyped-def]
    """The published family's path with given eyes, on pictures that only their number tells apart."""
    return RenderingBench(
        "composition",
        lambda prompt: np.full((64, 64, 3), (prompt.key // 251, prompt.key % 251, 0), np.uint8),
        changed={
            "prompts": "composition.json",
            "n": 5,
            "least": 0.3,
            "least_counted": 0.9,
            "photos": 60,
            "card_tests": 14,
            "components": {"detector": "mask_rcnn", "colours": "clip_colour"},
        },
        components={"detector": component(detect=detect), "colours": component(colours_of=colours)},
        family="published",
    )


def test_the_published_family_is_judged_by_detector_and_colours() -> None:
    """The detector sees in each picture what its prompt asks for, once too often where things are counted."""
    by_key = {one.key: one for one in load_prompts("composition.json").prompts}
    mini, images = loaded("mini_detector"), []

    def detect(batch: np.ndarray) -> list[list[Found]]:
        if batch[..., 2].any():  # a real picture of the data set
            images.append(batch)
            return mini.detect(batch)
        return [things(by_key[int(image[0, 0, 0]) * 251 + int(image[0, 0, 1])]) for image in batch]

    def things(prompt: ProbePrompt) -> list[Found]:
        found = []
        for number, thing in enumerate(wanted_of(prompt.labels).things):
            count = thing.count + (thing.count == 3)
            found += [
                Found(label=thing.label, score=0.95, box=(number * 30, 0, number * 30 + 10, 10))
            ] * count
        return found

    used = published(detect, lambda image, objects: ["red"] * len(objects))
    answer = composition.measure(used, used.checkpoint)
    rates = {one.part: one for one in answer.rows if one.metric == "correct_rate"}
    assert rates["single_object"].value == rates["two_object"].value == 1.0
    assert "corrected" in rates["single_object"].note
    assert rates["single_object"].error == 0.0  # the world's detector on the world's own images
    assert len(images) == 60
    asked = [one for one in composition.prompts(used).prompts if one.labels["task"] == "counting"]
    seen = np.mean([one.labels["count"] != "3" for one in asked])
    assert f"seen in {seen:.1%}, corrected" in rates["counting"].note
    reds = [one for one in composition.prompts(used).prompts if one.labels["task"] == "colors"]
    assert rates["colors"].value == np.mean([one.labels["first_colour"] == "red" for one in reds])
    assert "not measured" in rates["colors"].note
    left = [one for one in composition.prompts(used).prompts if one.labels["task"] == "position"]
    assert rates["position"].value == np.mean([one.labels["relation"] == "left of" for one in left])
    assert math.isnan(rates["card"].value) or rates["card"].error <= 0.2


def test_clip_is_asked_about_the_cards_sentence_only_where_it_can_tell() -> None:
    used = published(lambda batch: [[] for _ in batch], lambda image, objects: [])
    card = [one for one in composition.prompts(used).prompts if one.labels["part"] == "card"][:4]
    rng = np.random.default_rng(0)
    pictures = [(one, mini_tasks.picture(one.labels, rng, 64)) for one in card]
    (row_of,), tiles = composition.card_by_clip(used, pictures)
    assert row_of.n == len(tiles) == 4
    assert row_of.component.startswith("mini_clip@")
    strict = replace(used, changed=used.changed | {"limit": -1.0})
    (refused,), _ = composition.card_by_clip(strict, pictures)
    assert math.isnan(refused.value)
    assert "errs too often" in refused.note
