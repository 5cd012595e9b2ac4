"""Photorealism of pictures whose realism is known: the real ones, other rendered ones, and spoilt ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sd2eval.images import as_reference, load_rgb
from sd2eval.mini.render import render
from sd2eval.mini.world import draw_scene
from sd2eval.probes.base import ProbePrompt, Row, Unavailable
from sd2eval.probes.declared import photorealism
from tests.probes.rendering import RenderingBench


def bench(**changed: object) -> RenderingBench:
    """Draws for each caption a scene that nobody has seen."""
    return RenderingBench(
        "photorealism", lambda one: render(draw_scene(9, one.key))[0], changed={"n": 150} | changed
    )


def rows(used: RenderingBench) -> dict[tuple[str, str], Row]:
    return {(row.metric, row.part): row for row in photorealism.measure(used, used.checkpoint).rows}


def test_unseen_scenes_are_as_far_as_real_ones_are_from_each_other() -> None:
    found = rows(bench())
    nearest, kernel = found["nearest_real_distance", ""], found["kid_mini", ""]
    assert nearest.low <= 1 <= nearest.high
    assert kernel.low <= 0 <= kernel.high
    assert found["precision_mini", ""].value > 0.85
    assert {part for _, part in found} == {"", "cube", "ball", "cone", "ring"}


def test_slices_are_compared_at_equal_numbers() -> None:
    found = rows(bench())
    distances = [row for (metric, _), row in found.items() if metric == "fd_mini"]
    assert len({row.n for row in distances}) == 1
    assert len({row.note for row in distances}) == 1
    assert len({row.n for (metric, _), row in found.items() if metric == "kid_mini"}) > 1


def test_a_spoilt_category_stands_out() -> None:
    used = bench()
    whole, rng = used.picture, np.random.default_rng(0)

    def picture(prompt: ProbePrompt) -> np.ndarray:
        image = whole(prompt)
        spoil = any(word in prompt.text.lower() for word in ("ring", "hoop"))
        return rng.integers(0, 256, image.shape).astype(np.uint8) if spoil else image

    used.picture = picture
    found = rows(used)
    for metric in ("fd_mini", "kid_mini", "nearest_real_distance"):
        values = {part: row.value for (name, part), row in found.items() if name == metric and part}
        assert max(values, key=lambda part: values[part]) == "ring"
    assert found["precision_mini", "ring"].high < found["precision_mini", ""].low
    said = photorealism.measure(used, used.checkpoint).sentences
    assert any("highest for 'ring'" in sentence for sentence in said)


def test_categories_whose_intervals_overlap_are_not_ranked() -> None:
    used = bench()
    said = " ".join(photorealism.measure(used, used.checkpoint).sentences)
    assert "fd_mini lies between" in said
    assert "; their intervals overlap." in said
    assert "highest for" not in said


def test_copies_of_the_captions_own_images_get_no_credit_for_it() -> None:
    used = bench(n=60)

    def picture(prompt: ProbePrompt) -> np.ndarray:
        return as_reference(load_rgb(used.dataset.image_folder / prompt.image_file), used.protocol)

    used.picture = picture
    nearest = rows(used)["nearest_real_distance", ""]
    assert nearest.value > 0.5
    assert nearest.low <= 1 <= nearest.high


def test_a_slice_too_small_has_no_number_and_says_so() -> None:
    found = rows(bench(n=60, smallest=45))
    refused = [row for (metric, part), row in found.items() if part and math.isnan(row.value)]
    assert {row.metric for row in refused} == {"fd_mini", "kid_mini", "precision_mini"}
    assert "a slice needs 45 of each" in refused[0].note
    assert not math.isnan(found["fd_mini", ""].value)


def test_an_image_that_failed_is_left_out() -> None:
    used = bench(n=60)
    used.invalid = (3, 7)
    assert rows(used)["kid_mini", ""].n == 58


def test_a_published_metric_needs_its_network() -> None:
    with pytest.raises(Unavailable, match=r"distance=fid: needs a network of kind inception"):
        rows(bench(metrics={"distance": "fid", "kernel": "kid_mini", "precision": "precision_mini"}))
