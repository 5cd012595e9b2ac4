"""RapidOCR reads signs, says nothing and fetches nothing."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import rapidocr

from sd2eval.probes.base import Unavailable
from sd2eval.probes.components.ocr_rapidocr import MODELS
from sd2eval.probes.reading import compare
from sd2eval.probes.signs import draw_sign
from tests.probes.making import loaded

FAST = {"limit_side_len": 256}
OWN = Path(str(rapidocr.__file__)).parent / "models"


def test_it_reads_rendered_signs_and_nothing_where_nothing_is_written(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    reader = loaded("ocr_rapidocr", options=FAST)
    rng = np.random.default_rng(0)
    texts = ["OPEN", "FRESH BREAD", "NO DOGS HERE", "LIBRARY"]
    signs = np.stack([draw_sign(text, 256, rng).image for text in texts])
    for text, lines in zip(texts, reader.read(signs), strict=True):
        assert all(word.exact for word in compare(text, lines))
        assert all(0 <= line.box[0] < line.box[2] <= 256 for line in lines)
    assert reader.read(np.full((1, 64, 64, 3), 200, np.uint8)) == [[]]
    assert capfd.readouterr() == ("", "")


def test_colours_are_not_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wants blue first."""
    reader = loaded("ocr_rapidocr", options=FAST)
    given = []
    monkeypatch.setattr(type(reader.engine), "__call__", lambda self, image: given.append(image) or Nothing())
    reader.read(np.full((1, 8, 8, 3), (1, 2, 3), np.uint8))
    assert given[0][0, 0].tolist() == [3, 2, 1]


class Nothing:
    txts = None


@pytest.mark.parametrize("stage", list(MODELS))
def test_a_model_that_was_cut_or_is_missing_is_refused_when_it_is_loaded(tmp_path: Path, stage: str) -> None:
    for name in MODELS.values():
        shutil.copy(OWN / name, tmp_path)
    file = tmp_path / MODELS[stage]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Unavailable, match="its models cannot be read"):
        loaded("ocr_rapidocr", source=str(tmp_path))
    file.unlink()
    with pytest.raises(Unavailable, match=file.name):
        loaded("ocr_rapidocr", source=str(tmp_path))


def test_the_digest_is_that_of_the_models(tmp_path: Path) -> None:
    for name in MODELS.values():
        shutil.copy(OWN / name, tmp_path)
    assert loaded("ocr_rapidocr", source=str(tmp_path)).digest == loaded("ocr_rapidocr").digest
