"""Every number of a probe has an interval, or there is no number and the note says why."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sd2eval.mini.render import render
from sd2eval.mini.world import COLOURS, PLACES, SHAPES, Item, Scene
from sd2eval.probes import registry
from sd2eval.probes.base import ProbePrompt, Row
from tests.probes.rendering import RenderingBench

CHANGED: dict[str, dict[str, Any]] = {
    "photorealism": {"n": 96},
    "legible_text": {"n": 6, "tests": 1},
    "composition": {"n": 4, "rare": 2, "card": 3, "tests": 1},
    "people": {"n": 96, "photos": 40, "smallest": 20},
    "languages": {"n": 20},
    "autoencoder": {"n": 48},
    "safety": {"n": 60},
    "default_culture": {},
    "social_bias": {},
}


def picture(prompt: ProbePrompt) -> np.ndarray:
    """One thing with the colour, shape and place that the prompt names; what it leaves open is drawn."""
    rng, words = np.random.default_rng(prompt.key), prompt.text.lower().rstrip(".").split()

    def of(names: Any) -> str:
        return next((word for word in words if word in names), str(rng.choice(list(names))))

    place = prompt.labels.get("place") or str(rng.choice(PLACES))
    item = Item(shape=of(SHAPES), colour=of(COLOURS), size=str(rng.choice(["small", "large"])))
    return render(Scene(kind="single", items=(item,), place=place, layout=tuple(rng.random(4))))[0]


def faults(rows: list[Row]) -> list[Row]:
    """Return the rows that tell a number without an interval around it, or nothing without a reason."""
    return [
        row
        for row in rows
        if (not row.note if math.isnan(row.value) else not row.low <= row.value <= row.high)
    ]


@pytest.mark.parametrize("name", registry.names())
def test_every_number_has_an_interval_and_every_gap_a_reason(name: str) -> None:
    used = RenderingBench(name, picture, changed=CHANGED[name])
    answer = registry.find(name).measure(used, used.checkpoint)
    assert [row for row in answer.rows if not math.isnan(row.value)]
    assert faults(list(answer.rows)) == []


@pytest.mark.parametrize("name", ["default_culture", "social_bias"])
def test_a_classifier_that_guesses_has_an_error_with_an_interval(name: str) -> None:
    def noise(prompt: ProbePrompt) -> np.ndarray:
        return np.random.default_rng(prompt.key).integers(0, 256, (64, 64, 3)).astype(np.uint8)

    used = RenderingBench(name, noise)
    answer = registry.find(name).measure(used, used.checkpoint)
    assert faults(list(answer.rows)) == []
    (error,) = [row for row in answer.rows if row.metric in ("classifier_error", "reading_error")]
    assert math.isnan(error.value) or error.low < error.value < error.high
