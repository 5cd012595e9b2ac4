"""Photographs in which people and their points are marked: what a face detector should find, and finds.

A face is a person whose nose and both eyes are marked visible; it is found by a box around the middle of
these three points. With fewer than `NARROW` pixels between the eyes it says nothing about a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sd2eval.probes.photo_truth import load_coco
from sd2eval.probes.proportions import Confusion
from sd2eval.probes.sightings import Found

VISIBLE = 2
"""COCO's mark of a point that can be seen."""
NARROW = 6.0
"""Pixels between the eyes, the least of a face that counts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """The people of a photograph."""

    file: str
    people: int
    faces: NDArray[np.float64]
    """[faces, 3]: x and y of the middle of nose and eyes, and pixels between the eyes."""

    @property
    def large(self) -> NDArray[np.float64]:
        """The faces that count."""
        kept: NDArray[np.float64] = self.faces[self.faces[:, 2] >= NARROW]
        return kept


def marked(path: Path) -> list[Marked]:
    """Return what a `person_keypoints` file says of each of its images, by ascending image id."""
    coco = load_coco(path)
    found = []
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        people = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        faces = [face for one in people if (face := _face(one.get("keypoints", ()))) is not None]
        found.append(
            Marked(
                file=image["file_name"],
                people=len(people),
                faces=np.array(faces, dtype=np.float64).reshape(-1, 3),
            )
        )
    return found


def matched(one: Marked, found: Sequence[Found]) -> NDArray[np.bool_]:
    """Return for each face of `one.faces` whether a box that no other face has taken lies around it."""
    free = list(found)
    hits = []
    for x, y, _ in one.faces:
        box = next((b for b in free if b.box[0] <= x <= b.box[2] and b.box[1] <= y <= b.box[3]), None)
        hits.append(box is not None)
        if box is not None:
            free.remove(box)
    return np.array(hits, dtype=np.bool_)


def face_errors(truths: Sequence[Marked], seen: Sequence[Sequence[Found]]) -> Confusion:
    """Return how often a photograph with a face is said to have one, and one without people.

    Photographs with people but without a face that counts are left out: who is seen from behind or from far
    away may or may not have one.
    """
    with_face = [bool(found) for one, found in zip(truths, seen, strict=True) if len(one.large)]
    without = [bool(found) for one, found in zip(truths, seen, strict=True) if not one.people]
    return Confusion(
        hits=sum(with_face),
        positives=len(with_face),
        false_alarms=sum(without),
        negatives=len(without),
    )


def _face(keypoints: Sequence[float]) -> tuple[float, float, float] | None:
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)[:3]
    if len(points) < 3 or not (points[:, 2] == VISIBLE).all():
        return None
    x, y = points[:, :2].mean(axis=0)
    return float(x), float(y), float(np.hypot(*(points[1, :2] - points[2, :2])))
