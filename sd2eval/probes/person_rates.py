"""Whether anybody is in a picture, with how many points and with a face: rates, with the detectors' errors.

The errors are measured on the data set's own images, where it is marked what is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.images import load_rgb
from sd2eval.probes import person_truth, photo_truth
from sd2eval.probes.base import Bench, Box, Images, ProbePrompt, Row, Unavailable
from sd2eval.probes.measured_rates import confused, difference_row, enough, mean_row, rate_row
from sd2eval.probes.sightings import Found, Person, Rectangle

CHUNK = 16
"""Images that a detector gets at a time."""
OTHERS = "others"
Boxes = dict[int, tuple[Box, ...]]
"""What was found, by key of the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One of the two kinds: what was drawn for its captions, and real images of its kind."""

    part: str
    prompts: Sequence[ProbePrompt]
    images: Images
    real: NDArray[np.intp]
    """Rows of the data set's images."""

    @property
    def groups(self) -> list[int]:
        """Image of each caption."""
        return [one.group for one in self.prompts]


def presence_rows(bench: Bench, sides: tuple[Side, Side], boxes: Boxes) -> list[Row]:
    """Return how often anybody is there, corrected by what the detector gets wrong on marked real images."""

    def rows() -> list[Row]:
        detector, category = bench.component("detector"), str(bench.settings["category"])
        least = float(bench.settings["least"])
        errors = confused(*_on_real(bench, detector, category, least))
        found = []
        for side in sides:
            seen = _looked(bench, side.images, lambda images: _objects(detector, images, category, least))
            boxes.update(_labelled(side, seen))
            found.append(
                rate_row(
                    "detection_rate",
                    [bool(one) for one in seen],
                    side.groups,
                    part=side.part,
                    component=detector,
                    errors=errors,
                    direction="higher" if side.part != OTHERS else "none",
                    limit=float(bench.settings["limit"]),
                    note=f"a {category} is found",
                )
            )
        return found

    return _or_reason("detection_rate", sides[0].part, rows)


def _on_real(
    bench: Bench, detector: Any, category: str, least: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether the category is found in real images that show it, and in others."""
    truths = _here(bench, photo_truth.photos(bench.annotations("instances")))
    answers: tuple[list[bool], list[bool]] = [], []
    for number, truth in enumerate(truths):
        bench.progress(f"testing the detector: {number} of {len(truths)} real images")
        image = load_rgb(bench.dataset.image_folder / truth.file)[None]
        there = category in truth.objects
        answers[0 if there else 1].append(bool(_objects(detector, image, category, least)[0]))
    return np.array(answers[0], dtype=np.bool_), np.array(answers[1], dtype=np.bool_)


def _objects(detector: Any, images: Images, category: str, least: float) -> list[list[Found]]:
    """Return the objects of a category that a detector of objects, or one of people, is sure of."""
    if hasattr(detector, "people"):
        people: list[list[Person]] = detector.people(images)
        seen = [[Found(label=category, score=one.score, box=one.box) for one in many] for many in people]
    else:
        seen = detector.detect(images)
    return [[one for one in found if one.label == category and one.score > least] for found in seen]


def point_rows(bench: Bench, sides: tuple[Side, Side], boxes: Boxes) -> list[Row]:
    """Return how many of its 17 points the largest person shows, beside the captions' own real images."""
    side = sides[0]
    if "keypoints" not in bench.settings["components"]:
        return []

    def rows() -> list[Row]:
        detector = bench.component("keypoints")
        files = [bench.dataset.image_folder / one.image_file for one in side.prompts]
        found = []
        looks: dict[str, Callable[[slice], Images]] = {
            "": lambda chunk: side.images[chunk],
            ", real": lambda chunk: bench.real(files[chunk]),
        }
        for what, look in looks.items():
            shares, groups = _completeness(bench, detector, len(files), look, side.groups)
            if enough(groups):
                found.append(
                    mean_row(
                        "keypoint_completeness",
                        shares,
                        groups,
                        part=side.part + what,
                        component=detector,
                        error=math.nan,
                        unit="share of 17 points",
                        bounds=(0.0, 1.0),
                        note="of the largest person; people in real images are partly hidden too",
                    )
                )
        if len(found) == 2:
            first, second = found
            difference = difference_row(first, second, dof=min(first.n, second.n) - 1)
            found.append(replace(difference, part=f"{side.part}, generated - real"))
        return found

    return _or_reason("keypoint_completeness", side.part, rows)


def _completeness(
    bench: Bench, detector: Any, n: int, look: Callable[[slice], Images], groups: Sequence[int]
) -> tuple[list[float], list[int]]:
    """Return the share of sure points of each image's largest person, and the image's group."""
    sure, least = float(bench.settings["sure"]), float(bench.settings["least"])
    shares, used = [], []
    for start in range(0, n, CHUNK):
        bench.progress(f"looking for people: {start} of {n}")
        chunk = slice(start, min(start + CHUNK, n))
        for group, people in zip(groups[chunk], detector.people(look(chunk)), strict=True):
            likely = [one for one in people if one.score > least]
            if likely:
                largest = max(likely, key=lambda one: _area(one.box))
                shares.append(float((largest.certainty > sure).mean()))
                used.append(group)
    return shares, used


def face_rows(bench: Bench, sides: tuple[Side, Side], boxes: Boxes) -> list[Row]:
    """Return how often there is a face, and how often in the captions' own real images."""
    side = sides[0]
    if "faces" not in bench.settings["components"]:
        return []

    def rows() -> list[Row]:
        detector = bench.component("faces")
        truths = _here(bench, person_truth.marked(bench.annotations("person_keypoints")))
        folder = bench.dataset.image_folder
        bench.progress("testing the face detector on real images")
        seen = [detector.detect(load_rgb(folder / one.file)[None])[0] for one in truths]
        errors = person_truth.face_errors(truths, seen)
        generated = _looked(bench, side.images, detector.detect)
        boxes.update({key: boxes.get(key, ()) + more for key, more in _labelled(side, generated).items()})
        files = [folder / one.image_file for one in side.prompts]
        real = [
            bool(one)
            for start in range(0, len(files), CHUNK)
            for one in detector.detect(bench.real(files[start : start + CHUNK]))
        ]
        return [
            rate_row(
                "face_rate",
                found,
                side.groups,
                part=side.part + what,
                component=detector,
                errors=errors,
                limit=float(bench.settings["limit"]),
                note="a face is found",
            )
            for what, found in (("", [bool(one) for one in generated]), (", real", real))
        ]

    return _or_reason("face_rate", side.part, rows)


def _or_reason(metric: str, part: str, rows: Callable[[], list[Row]]) -> list[Row]:
    """Return the rows, or one without a number that says which component is missing and how to get it."""
    try:
        return rows()
    except Unavailable as error:
        return [
            Row(part=part, metric=metric, value=math.nan, n=0, direction="none", unit="", note=str(error))
        ]


def _here(bench: Bench, truths: Sequence[Any]) -> list[Any]:
    """Return those of the marked images that are on this machine, at most `photos`."""
    folder = bench.dataset.image_folder
    return [one for one in truths if (folder / one.file).is_file()][: int(bench.settings["photos"])]


def _looked(bench: Bench, images: Images, detect: Callable[[Images], list[list[Found]]]) -> list[list[Found]]:
    seen: list[list[Found]] = []
    for start in range(0, len(images), CHUNK):
        bench.progress(f"looking at pictures: {start} of {len(images)}")
        seen += [[replace(one, mask=None) for one in many] for many in detect(images[start : start + CHUNK])]
    return seen


def _labelled(side: Side, seen: Sequence[Sequence[Found]]) -> Boxes:
    return {
        prompt.key: tuple(
            Box(left=one.box[0], top=one.box[1], right=one.box[2], bottom=one.box[3], label=one.label)
            for one in found
        )
        for prompt, found in zip(side.prompts, seen, strict=True)
    }


def _area(box: Rectangle) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)
