"""The packaged data set is what the code makes, and COCO's own tools read it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sd2eval.mini import DATA
from sd2eval.mini.dataset import (
    COUNT,
    caption_records,
    held_out_scenes,
    image_record,
    instance_records,
    write_dataset,
)
from sd2eval.mini.render import render, silhouettes
from sd2eval.mini.world import HELD_OUT_SEED, TRAIN_SEED, draw_scene

LIMIT_MB = 3.0


def read(name: str) -> dict[str, Any]:
    records: dict[str, Any] = json.loads((DATA / "annotations" / f"{name}.json").read_text(encoding="utf-8"))
    return records


@pytest.mark.parametrize("index", [0, 1, 255, COUNT - 1])
def test_files_are_what_the_code_makes(index: int) -> None:
    scene, record = draw_scene(HELD_OUT_SEED, index), image_record(index)
    with Image.open(DATA / "images" / record["file_name"]) as stored:
        assert np.array_equal(np.asarray(stored), render(scene)[0])
    captions, instances = read("captions_mini"), read("instances_mini")
    assert captions["images"][index] == instances["images"][index] == record
    assert [c for c in captions["annotations"] if c["image_id"] == record["id"]] == caption_records(
        scene, index
    )
    assert [a for a in instances["annotations"] if a["image_id"] == record["id"]] == instance_records(
        scene, index
    )


def test_writing_again_gives_the_same_files(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", count=3)
    write_dataset(tmp_path / "b", count=3)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 5
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_ids_are_unique_and_not_shared() -> None:
    captions, instances = read("captions_mini"), read("instances_mini")
    images = [image["id"] for image in captions["images"]]
    of_captions = [caption["id"] for caption in captions["annotations"]]
    of_instances = [instance["id"] for instance in instances["annotations"]]
    assert len(images) == COUNT
    assert len(of_captions) == 5 * COUNT
    assert len(set(images + of_captions + of_instances)) == len(images) + len(of_captions) + len(of_instances)
    assert {path.name for path in (DATA / "images").iterdir()} == {
        image["file_name"] for image in captions["images"]
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_pycocotools_reads_instances_and_masks_match_the_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(DATA / "annotations" / "instances_mini.json"))
    capsys.readouterr()
    for index, scene in enumerate(held_out_scenes(40)):
        record = image_record(index)
        annotations = coco.loadAnns(coco.getAnnIds(record["id"]))
        masks = np.stack([coco.annToMask(annotation) for annotation in annotations]).astype(bool)
        assert np.array_equal(masks, silhouettes(scene))
        chroma = np.ptp(render(scene)[0].astype(int), axis=-1)
        assert chroma[masks.any(axis=0)].mean() > 2 * chroma[~masks.any(axis=0)].mean()
        for annotation, mask in zip(annotations, masks, strict=True):
            x, y, width, height = annotation["bbox"]
            rows, columns = np.nonzero(mask)
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert annotation["area"] == mask.sum()


def test_held_out_scenes_are_not_training_scenes() -> None:
    training = {draw_scene(TRAIN_SEED, index) for index in range(2_000)}
    assert not training & set(held_out_scenes())


def test_the_data_set_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < LIMIT_MB * 1e6
