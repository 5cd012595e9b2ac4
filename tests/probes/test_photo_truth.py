"""What people marked in photographs, and how often a detector with known faults is right about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.mini import DATA
from sd2eval.probes import person_truth, photo_truth
from sd2eval.probes.photo_truth import Photo
from sd2eval.probes.sightings import Found
from tests.probes.making import REAL, real_only

NAMES = [f"thing {number}" for number in range(30)]


def seen(*labels: str, score: float = 0.9) -> list[Found]:
    return [Found(label=label, score=score, box=(0, 0, 1, 1)) for label in labels]


def photo(**objects: int) -> Photo:
    return Photo(
        file="x.jpg", objects={key.replace("_", " "): n for key, n in objects.items()}, crowds=frozenset()
    )


def test_presence_counts_hits_and_false_alarms() -> None:
    rng = np.random.default_rng(0)
    truths, found = [], []
    for _ in range(400):
        there = rng.choice(30, size=5, replace=False)
        told = [i for i in range(30) if rng.random() < (0.8 if i in there else 0.1)]
        truths.append(photo(**{f"thing_{i}": 1 for i in there}))
        found.append(seen(*(NAMES[i] for i in told)))
    errors = photo_truth.presence(truths, found, 0.3, NAMES)
    assert errors.positives == errors.negatives == 2000
    assert errors.sensitivity == pytest.approx(0.8, abs=0.03)
    assert errors.specificity == pytest.approx(0.9, abs=0.03)
    assert photo_truth.presence(truths, found, 0.95, NAMES).hits == 0


def test_numbers_are_right_or_wrong_as_a_whole() -> None:
    truths = [photo(thing_1=2, thing_2=1, thing_3=7), photo(thing_1=3)]
    right = [seen("thing 1", "thing 1"), seen("thing 1", "thing 1", "thing 1")]
    errors = photo_truth.counts(truths, right, 0.3)
    assert (errors.hits, errors.positives, errors.false_alarms) == (2, 2, 0)  # 1 and 7 are not asked for
    assert photo_truth.counts(truths, [seen(), seen()], 0.3).hits == 0
    crowd = Photo(file="x", objects={"thing 1": 2}, crowds=frozenset({"thing 1"}))
    assert photo_truth.counts([crowd], [seen()], 0.3).positives == 0


def test_the_worlds_own_annotations_are_read() -> None:
    path = DATA / "annotations" / "instances_mini.json"
    photos = photo_truth.photos(path)
    assert len(photos) == 512
    assert photo_truth.categories(path) == ["cube", "ball", "cone", "ring"]
    assert sum("ball" in one.objects for one in photos) == 194


@real_only
def test_cocos_annotations_are_read() -> None:
    photos = photo_truth.photos(REAL / "subset" / "instances_val2017.json")
    assert len(photos) == 79
    assert sum(sum(one.objects.values()) for one in photos) == 624
    assert sum("person" in one.objects for one in photos) == 39
    people = person_truth.marked(REAL / "subset" / "person_keypoints_val2017.json")
    assert [one.file for one in people] == [one.file for one in photos]
    assert [one.people for one in people] == [one.objects.get("person", 0) for one in photos]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 3}', "no json"])
def test_what_is_no_annotation_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InputError, match=r"instances\.json: cannot be read as COCO annotations"):
        photo_truth.photos(tmp_path / "instances.json")


def marked(tmp_path: Path, *people: list[float]) -> person_truth.Marked:
    data = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "keypoints": points}
            for i, points in enumerate(people)
        ],
    }
    (tmp_path / "person_keypoints.json").write_text(json.dumps(data))
    (one,) = person_truth.marked(tmp_path / "person_keypoints.json")
    return one


def test_a_face_is_a_visible_nose_with_two_visible_eyes(tmp_path: Path) -> None:
    rest = [0.0] * 42
    whole = [50, 60, 2, 40, 50, 2, 60, 50, 2, *rest]
    hidden = [50, 60, 2, 40, 50, 1, 60, 50, 2, *rest]
    tiny = [9, 9, 2, 7, 7, 2, 10, 7, 2, *rest]
    one = marked(tmp_path, whole, hidden, tiny)
    assert one.people == 3
    np.testing.assert_allclose(one.faces, [[50, 160 / 3, 20], [26 / 3, 23 / 3, 3]])
    np.testing.assert_allclose(one.large, [[50, 160 / 3, 20]])


def test_one_box_finds_one_face(tmp_path: Path) -> None:
    rest = [0.0] * 42
    faces = [[x, 60, 2, x - 10, 50, 2, x + 10, 50, 2, *rest] for x in (50, 55)]
    one = marked(tmp_path, *faces)
    around = Found(label="face", score=1, box=(30, 30, 80, 80))
    assert person_truth.matched(one, [around]).tolist() == [True, False]
    assert person_truth.matched(one, [around, around]).tolist() == [True, True]
    beside = Found(label="face", score=1, box=(0, 0, 20, 20))
    assert person_truth.matched(one, [beside]).tolist() == [False, False]


def test_faces_are_judged_where_it_is_clear_whether_there_is_one() -> None:
    face = np.array([[5.0, 5.0, 10.0]])
    none = np.zeros((0, 3))
    truths = [
        person_truth.Marked(file="face", people=1, faces=face),
        person_truth.Marked(file="from behind", people=1, faces=none),
        person_truth.Marked(file="nobody", people=0, faces=none),
        person_truth.Marked(file="nobody", people=0, faces=none),
    ]
    box = [Found(label="face", score=1, box=(0, 0, 10, 10))]
    errors = person_truth.face_errors(truths, [box, box, box, []])
    assert (errors.hits, errors.positives, errors.false_alarms, errors.negatives) == (1, 1, 1, 2)
