"""Categories by pycocotools, on the mini world's annotations and on COCO's; nearest real images by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sd2eval.errors import InputError
from sd2eval.metrics.neighbours import neighbour_reference, precision
from sd2eval.mini import DATA
from sd2eval.mini.world import HELD_OUT_SEED, draw_scene
from sd2eval.probes import slices
from tests.probes.making import REAL, real_only

INSTANCES = DATA / "annotations" / "instances_mini.json"


def test_categories_are_those_of_the_scenes() -> None:
    shown = slices.categories(INSTANCES, "category")
    assert len(shown) == 512
    for index in (0, 17, 300):
        scene = draw_scene(HELD_OUT_SEED, index)
        assert set(shown[f"{1000 + index:012d}.png"]) == {item.shape for item in scene.items}
    assert set(slices.categories(INSTANCES, "supercategory").values()) == {("solid",)}


@real_only
def test_supercategories_of_real_annotations() -> None:
    file = REAL / "subset" / "instances_val2017.json"
    shown = slices.categories(file, "supercategory")
    data = json.loads(file.read_text())
    kinds = {one["id"]: one["supercategory"] for one in data["categories"]}
    assert len(shown) == len(data["images"]) == 79
    assert len(set(kinds.values())) == 12
    found = slices.members(list(shown.values()))
    for kind in ("person", "vehicle", "food"):
        by_hand = {one["image_id"] for one in data["annotations"] if kinds[one["category_id"]] == kind}
        assert len(found[kind]) == len(by_hand) > 0
    assert sum(map(len, found.values())) > len(shown)  # an image is in several


def test_an_image_counts_in_each_category_that_it_shows() -> None:
    found = slices.members([("a", "b"), ("b",), (), ("c", "b")])
    assert {name: rows.tolist() for name, rows in found.items()} == {"b": [0, 1, 3], "a": [0], "c": [3]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("annotations"), r"'annotations' must be a list"),
        (
            lambda data: data["categories"][0].pop("supercategory"),
            r"categories\[0\]: it has no 'supercategory'",
        ),
        (lambda data: data["annotations"][3].update(category_id=99), r"annotations\[3\]: no category"),
        (lambda data: data["images"][1].pop("file_name"), r"images\[1\]: it has no 'file_name'"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, change, message: str) -> None:
    data = json.loads(INSTANCES.read_text())
    change(data)
    (tmp_path / "instances.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        slices.categories(tmp_path / "instances.json", "category")


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"cut\.json: cannot be read"):
        slices.categories(tmp_path / "cut.json", "category")


def test_nearest_real_leaves_the_own_image_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(40, 5))
    x[:10] = y[:10]  # copies of their own images
    own = np.concatenate([np.arange(10), np.full(20, -1)])
    distances = cdist(x, y)
    distances[np.arange(10), np.arange(10)] = np.inf
    assert slices.nearest_real(x, y, own) == pytest.approx(distances.min(axis=1))
    assert slices.nearest_real(x, y, np.full(30, -1))[:10] == pytest.approx(0, abs=1e-6)
    between = cdist(y, y) + np.diag(np.full(40, np.inf))
    assert slices.among_real(y) == pytest.approx(between.min(axis=1))


def test_inside_is_what_precision_is_the_mean_of() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 4)) * 1.5, rng.normal(size=(50, 4))
    balls = neighbour_reference(y, 3)
    assert slices.inside(x, balls).mean() == precision(x, balls).value
    assert 0 < slices.inside_others(y).mean() < 1  # with itself, each would lie in its own ball


def test_median_has_a_distribution_free_interval() -> None:
    """n = 10: the 2nd smallest and 2nd largest; P(Binomial(10, 1/2) <= 1) = 11/1024 <= 2.5% < 56/1024."""
    found = slices.median(np.arange(10.0)[::-1])
    assert (found.value, found.low, found.high) == (4.5, 1.0, 8.0)
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(2000):
        one = slices.median(np.exp(2 * rng.normal(size=60)))
        held += one.low <= 1 <= one.high
    assert 0.94 <= held / 2000 <= 0.98
