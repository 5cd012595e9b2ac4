"""What is not whole in a folder of COCO is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sd2eval.coco import COCO_2017_VALIDATION, Published, fetch_coco, show, verify_coco
from sd2eval.coco_check import MANIFEST
from sd2eval.errors import InputError
from tests.loopback import Loopback
from tests.tiny_coco import (
    CAPTIONS,
    INSTANCES,
    KEYPOINTS,
    picture,
    publish,
    tree,
    write_folder,
)


@pytest.fixture
def published(server: Loopback) -> Published:
    return publish(server)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder that somebody else made, whole."""
    return write_folder(tmp_path / "own")


def test_the_table_is_what_is_published() -> None:
    table = COCO_2017_VALIDATION
    assert (table.images.size, table.annotations.size) == (815_585_330, 252_907_541)
    for archive in (table.images, table.annotations):
        assert archive.url.startswith("http://images.cocodataset.org/")
        assert archive.url.endswith(f"/{archive.name}")
        assert len(archive.digest) == len("sha256:") + 64
    assert table.images.wants("val2017/000000000139.jpg")
    assert table.annotations.wants("annotations/captions_val2017.json")
    assert not table.annotations.wants("annotations/instances_train2017.json")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (Path.unlink, "missing"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "no image": (lambda path: path.write_bytes(b"<html>"), "is no JPEG, PNG, WEBP image"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder, not an image"),
    "dangling": (
        lambda path: (path.unlink(), path.symlink_to("elsewhere.jpg")),
        "is a link to elsewhere.jpg, which is not there",
    ),
    "other size": (lambda path: path.write_bytes(picture(5)), "is 55x45, not 58x42"),
    "turned": (lambda path: Image.new("RGB", (42, 58)).save(path), "is 42x58, not 58x42"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_an_image_is_found_and_named(
    published: Published, own: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, what = FAULTS[fault]
    damage(own / "val2017" / "000000000002.jpg")
    condition = verify_coco(own, published=published, progress=False)
    (found,) = condition.faults
    assert found.file == "val2017/000000000002.jpg"
    assert what in found.what
    assert "0x" not in found.what
    with pytest.raises(InputError) as error:
        show(own, condition)
    counts = "1 missing, 0 wrong" if what == "missing" else "0 missing, 1 wrong"
    assert str(error.value) == f"{own}: not whole: {counts} (6 images, 6 captions expected)"
    assert "val2017/000000000002.jpg" in capsys.readouterr().out


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 100, 500, 1000])
def test_an_image_cut_at_any_byte_is_found(published: Published, own: Path, cut: int) -> None:
    path = own / "val2017" / "000000000002.jpg"
    path.write_bytes(path.read_bytes()[:-cut])
    (fault,) = verify_coco(own, published=published, progress=False).faults
    assert fault.file == "val2017/000000000002.jpg"


def test_altered_captions_are_not_the_published_ones(published: Published, own: Path) -> None:
    text = (own / CAPTIONS).read_text()
    (own / CAPTIONS).write_text(text.replace("picture 1", "picture 9"))
    (fault,) = verify_coco(own, published=published, progress=False).faults
    assert str(fault).startswith(f"{CAPTIONS}: not the published file: it has sha256 ")


def test_captions_alone_are_enough_and_what_is_absent_is_said(
    published: Published, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / INSTANCES).unlink()
    (own / KEYPOINTS).unlink()
    show(own, verify_coco(own, published=published, progress=False))
    assert f"not there, and not needed for a sweep: {KEYPOINTS}, {INSTANCES}" in capsys.readouterr().out


def test_no_folder_no_captions_and_cut_captions_get_one_line(published: Published, own: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        verify_coco(own / "nowhere", published=published)
    (own / CAPTIONS).write_bytes((own / CAPTIONS).read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off"):
        verify_coco(own, published=published)
    (own / CAPTIONS).unlink()
    with pytest.raises(InputError, match="cannot read the caption file"):
        verify_coco(own, published=published)


def test_what_was_fetched_is_compared_to_the_last_bit(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    fetch_coco(tmp_path, published=published, progress=False)
    with (tmp_path / "val2017" / "000000000002.jpg").open("ab") as file:
        file.write(b"\0")  # decodes as before
    (tmp_path / KEYPOINTS).write_text("{ }")
    faults = [str(fault) for fault in verify_coco(tmp_path, published=published, progress=False).faults]
    assert len(faults) == 2
    assert faults[0].startswith(f"{KEYPOINTS}: not the fetched file: it has sha256 ")
    assert faults[1] == "val2017/000000000002.jpg: its bytes are not those that were fetched"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 2, "files": {}}', '{"schema_version": 1}']
)
def test_a_damaged_manifest_is_never_ignored(published: Published, own: Path, text: str) -> None:
    (own / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=rf"{MANIFEST}: not a readable manifest .*; move it away"):
        verify_coco(own, published=published, progress=False)


def test_verify_writes_nothing(published: Published, own: Path) -> None:
    before = tree(own)
    verify_coco(own, published=published, progress=False)
    assert tree(own) == before


def test_many_faults_are_counted(published: Published, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own / "val2017")
    with pytest.raises(InputError, match="6 missing, 0 wrong"):
        show(own, verify_coco(own, published=published, progress=False))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "missing: val2017/000000000001.jpg"
    assert lines[-1] == "missing: 1 more"
    assert len(lines) == 6
