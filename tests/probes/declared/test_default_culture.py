"""Places of pictures that are rendered: the planted shares must come out, or nothing."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from sd2eval.mini.render import render
from sd2eval.mini.world import PLACES, UNNAMED_PLACE, Item, Scene
from sd2eval.probes.base import ProbePrompt, Row
from sd2eval.probes.declared import default_culture
from sd2eval.probes.shares import ClassErrors
from tests.probes.rendering import RenderingBench


def scene(prompt: ProbePrompt, shares: dict[str, float]) -> Scene:
    """What the prompt says; where it says nothing of the place, one is drawn."""
    rng = np.random.default_rng(prompt.key)
    _, colour, shape = prompt.text.rstrip(".").split()[:3]
    place = prompt.labels["place"] or str(rng.choice(PLACES, p=[shares[one] for one in PLACES]))
    layout = tuple(rng.random(4))
    size = str(rng.choice(["small", "large"]))
    return Scene(
        kind="single", items=(Item(shape=shape, colour=colour, size=size),), place=place, layout=layout
    )


def bench(shares: dict[str, float] = UNNAMED_PLACE, **changed: object) -> RenderingBench:
    return RenderingBench(
        "default_culture", lambda prompt: render(scene(prompt, shares))[0], changed=dict(changed)
    )


def rows(used: RenderingBench) -> dict[tuple[str, str], Row]:
    return {(row.metric, row.part): row for row in default_culture.measure(used, used.checkpoint).rows}


def test_the_planted_shares_lie_in_their_intervals() -> None:
    found = rows(bench())
    for place, share in UNNAMED_PLACE.items():
        row, above = found["share", place], found["share_above_expected", place]
        assert row.low <= share <= row.high
        assert above.low <= 0 <= above.high
        assert row.high - row.low < 0.35
    assert sum(found["share", place].value for place in PLACES) == pytest.approx(1)


def test_a_first_place_that_others_may_hold_is_said() -> None:
    used = bench(dict.fromkeys(PLACES, 0.0) | {"snow": 0.5, "beach": 0.5})
    assert (
        "; its interval overlaps with that of '"
        in default_culture.measure(used, used.checkpoint).sentences[0]
    )
    used = bench(dict.fromkeys(PLACES, 0.05) | {"snow": 0.8})
    assert "overlaps" not in default_culture.measure(used, used.checkpoint).sentences[0]


def test_another_default_is_found() -> None:
    shares = dict.fromkeys(PLACES, 0.05) | {"snow": 0.8}
    found = rows(bench(shares))
    assert found["share", "snow"].low <= 0.8 <= found["share", "snow"].high
    assert found["share_above_expected", "snow"].low > 0.5
    assert found["share_above_expected", "meadow"].high < 0


def test_errors_of_the_classifier_are_taken_out() -> None:
    """A third of the beach images, marked or not, look like meadows."""
    shares = dict.fromkeys(PLACES, 0.0) | {"beach": 0.75, "meadow": 0.25}

    def picture(prompt: ProbePrompt) -> np.ndarray:
        shown = scene(prompt, shares)
        if shown.place == "beach" and np.random.default_rng([1, prompt.key]).random() < 1 / 3:
            shown = Scene(kind="single", items=shown.items, place="meadow", layout=shown.layout)
        return render(shown)[0]

    found = rows(RenderingBench("default_culture", picture, changed={"marked": 40}))
    beach = found["share", "beach"]
    assert "seen in 4" in beach.note or "seen in 5" in beach.note
    assert beach.low <= 0.75 <= beach.high
    assert beach.value == pytest.approx(0.75, abs=0.15)
    assert beach.error > 0.03


def test_a_classifier_that_guesses_gives_no_shares() -> None:
    found = rows(RenderingBench("default_culture", lambda prompt: np.random.default_rng(prompt.key).integers(
        0, 256, (64, 64, 3)).astype(np.uint8)))  # fmt: skip
    assert all(math.isnan(row.value) for (metric, _), row in found.items() if metric.startswith("share"))
    assert found["classifier_error", ""].value > 0.3
    assert "errs too often" in found["share", "meadow"].note


def test_errors_that_are_not_known_are_said_in_words() -> None:
    """Of one place no known image was decided."""
    names = tuple(PLACES)
    counts = np.pad(4.0 * np.eye(len(names)), ((0, 0), (0, 1)))
    counts[1] = np.eye(len(names) + 1)[-1] * 4
    errors = ClassErrors(names, counts)
    asked = default_culture.Asked(scenes=range(6), by="x", limit=0.3, weights="planted share")
    answers = np.zeros(6, np.intp)
    found = default_culture._shares(errors, answers, UNNAMED_PLACE, asked)
    reason = f"the classifier's errors are not known: no held-out image of '{names[1]}' was decided"
    assert {row.note for row in found} == {reason}
    found += default_culture._quality(errors, answers, asked)
    first, second = default_culture._sentences(found, default_culture._mini(), 1.0)
    assert first == f"No shares: {reason}."
    assert second.startswith(
        "How often the classifier errs is not known: too few marked images are decided (16); of the unmarked "
    )


def test_pictures_of_which_most_are_unlike_all_places_give_no_shares() -> None:
    def picture(prompt: ProbePrompt) -> np.ndarray:
        image, rng = render(scene(prompt, UNNAMED_PLACE))[0], np.random.default_rng([1, prompt.key])
        unlike = not prompt.labels["place"] and rng.random() < 0.6
        return rng.integers(0, 256, image.shape).astype(np.uint8) if unlike else image

    used = RenderingBench("default_culture", picture)
    answer = default_culture.measure(used, used.checkpoint)
    found = {(row.metric, row.part): row for row in answer.rows}
    assert found["undecided", ""].low > 0.4
    assert all(math.isnan(found["share", place].value) for place in PLACES)
    assert "look like none of the places" in found["share", "meadow"].note
    assert answer.sentences[0].startswith("No shares")


def test_prompts_of_places_and_scenes_are_balanced() -> None:
    listed = default_culture.prompts(bench()).prompts
    assert len({one.key for one in listed}) == len(listed) == 190
    marked = [one for one in listed if one.labels["place"]]
    assert set(Counter(one.labels["place"] for one in marked).values()) == {20}
    for place in PLACES:  # as many scenes as images: none is there twice
        assert len({one.group for one in marked if one.labels["place"] == place}) == 20
    assert {one.text for one in listed if not one.labels["place"]} >= {"A red ball.", "An orange cube."}
    assert any(one.text == "A red ball in the snow." for one in marked)


def test_countries_of_all_regions_are_asked_for() -> None:
    published = SimpleNamespace(family="published", settings={"unmarked": 2, "marked": 14})
    found = default_culture.prompts(published)
    places = Counter(one.labels["place"] for one in found.prompts)
    assert places.pop("") == 28
    assert len(places) == 40
    assert set(places.values()) == {14}
    texts = {one.text for one in found.prompts}
    assert {"a wedding", "a wedding in Nigeria", "a house in the Democratic Republic of the Congo"} <= texts
    world = default_culture._published()
    assert len(world.regions()) == 6
    assert sum(world.regions().values()) == pytest.approx(1)
    assert world.regions()["Asia"] > 0.5
    assert "United Nations" in found.source


def test_regions_are_told_where_countries_look_alike() -> None:
    """Each region is one place of the mini world; unmarked scenes show Europe's and Africa's only."""
    regions = list(default_culture._published().regions())
    looks = dict(zip(regions, (*PLACES, "meadow"), strict=True))

    def picture(prompt: ProbePrompt) -> np.ndarray:
        rng = np.random.default_rng(prompt.key)
        region = prompt.labels.get("region") or ("Europe" if rng.random() < 0.75 else "Africa")
        colour = "blue" if region == regions[5] else "red"
        item = Item(shape=("cube", "ball", "cone", "ring")[prompt.group % 4], colour=colour, size="large")
        return render(Scene(kind="single", items=(item,), place=looks[region], layout=tuple(rng.random(4))))[
            0
        ]

    changed = {"unmarked": 4, "marked": 5, "most_errors": 0.5}
    used = RenderingBench("default_culture", picture, changed=changed, family="published")
    found = rows(used)
    assert found["share", "Europe"].low <= 0.75 <= found["share", "Europe"].high
    assert found["share_above_expected", "Europe"].low > 0.3
    assert found["share_above_expected", "Asia"].high < -0.4
    assert found["undecided", ""].value < 0.3
    assert "errs too often" in found["share", "Nigeria"].note
