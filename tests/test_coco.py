"""A folder of COCO is fetched whole from its archives, whatever is there and whatever interrupts it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sd2eval.coco import Published, fetch_coco, show, verify_coco
from sd2eval.coco_check import MANIFEST
from sd2eval.errors import InputError, Stopped
from sd2eval.prompts import load_captions
from tests.loopback import Loopback
from tests.tiny_coco import (
    ANNOTATIONS,
    CAPTIONS,
    IMAGES,
    INSTANCES,
    KEYPOINTS,
    archive_of,
    asked,
    contents,
    publish,
    tree,
    whole,
    write_folder,
    zipped,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def published(server: Loopback) -> Published:
    return publish(server)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder that somebody else made, whole."""
    return write_folder(tmp_path / "own")


def test_fetch_makes_the_layout_and_nothing_else(
    tmp_path: Path, server: Loopback, published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "datasets" / "coco"
    condition = fetch_coco(root, published=published)
    found = tree(root)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == whole()
    assert manifest["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in whole().items()}
    assert (condition.images, condition.captions, condition.faults) == (IMAGES, IMAGES, ())
    assert condition.compared == IMAGES + 3
    assert len(load_captions(root / CAPTIONS).prompts) == IMAGES
    show(root, condition)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"{root} is whole: 6 images, 6 captions; data=coco data.root={root}"
    assert f"annotations.zip: {published.annotations.size} B from {published.annotations.url}" in said.err


def test_a_folder_that_is_whole_makes_no_request(server: Loopback, published: Published, own: Path) -> None:
    before = tree(own)
    assert fetch_coco(own, published=published, progress=False).faults == ()
    assert server.log == []
    assert tree(own) == before


def test_only_what_is_missing_is_fetched(server: Loopback, published: Published, own: Path) -> None:
    shutil.rmtree(own / "val2017")
    fetch_coco(own, published=published, progress=False)
    assert asked(server) == ["val2017.zip"]
    (own / KEYPOINTS).unlink()
    fetch_coco(own, published=published, progress=False)
    assert asked(server) == ["val2017.zip", "annotations.zip"]


def test_missing_images_are_added_to_those_that_are_there(
    server: Loopback, published: Published, own: Path
) -> None:
    missing, kept = (own / "val2017" / f"00000000000{key}.jpg" for key in (3, 4))
    content, inode = missing.read_bytes(), kept.stat().st_ino
    missing.unlink()
    fetch_coco(own, published=published, progress=False)
    assert missing.read_bytes() == content
    assert kept.stat().st_ino == inode


def test_a_link_to_another_place_is_filled_there(
    tmp_path: Path, server: Loopback, published: Published, own: Path
) -> None:
    other_disk = Path("/dev/shm")  # where there is one; renaming from one disk to another fails
    with tempfile.TemporaryDirectory(dir=other_disk if os.access(other_disk, os.W_OK) else tmp_path) as there:
        elsewhere = Path(there) / "elsewhere"
        shutil.move(own / "val2017", elsewhere)
        (own / "val2017").symlink_to(elsewhere)
        (elsewhere / "000000000003.jpg").unlink()
        fetch_coco(own, published=published, progress=False)
        assert (own / "val2017").is_symlink()
        assert len(list(elsewhere.iterdir())) == IMAGES


@pytest.mark.parametrize("file", ["val2017/000000000002.jpg", CAPTIONS, INSTANCES, KEYPOINTS])
def test_what_is_there_and_wrong_is_named_and_left_alone(
    server: Loopback, published: Published, own: Path, file: str
) -> None:
    damaged = (own / file).read_bytes()[:-1]
    (own / file).write_bytes(damaged)
    (own / "val2017" / "000000000005.jpg").unlink()
    with pytest.raises(InputError) as error:
        fetch_coco(own, published=published, progress=False)
    assert f"{own}: {file}: " in str(error.value)
    assert "move it away" in str(error.value)
    assert (own / file).read_bytes() == damaged
    assert server.log == []


def test_archives_are_kept_when_asked_for(tmp_path: Path, server: Loopback, published: Published) -> None:
    fetch_coco(tmp_path, published=published, keep_archives=True, progress=False)
    assert {path.name for path in tmp_path.glob("*.zip")} == {"annotations.zip", "val2017.zip"}
    assert (tmp_path / "val2017.zip").stat().st_size == published.images.size


def test_archives_that_the_user_has_are_used_and_kept(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    (tmp_path / "val2017.zip").write_bytes(server.files["val2017.zip"].content)
    fetch_coco(tmp_path, published=published, progress=False)
    assert asked(server) == ["annotations.zip"]
    assert [path.name for path in tmp_path.glob("*.zip")] == ["val2017.zip"]


def test_a_mirror_is_used_and_its_digest_decides(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    good = server.add("mirror/a.zip", server.files["annotations.zip"].content)
    fetch_coco(tmp_path, annotations_url=good, published=published, progress=False)
    assert asked(server) == ["mirror/a.zip", "val2017.zip"]
    altered = bytearray(server.files["annotations.zip"].content)
    altered[50] ^= 1
    bad = server.add("mirror/b.zip", bytes(altered))
    with pytest.raises(InputError, match=r"b\.zip: what came is not the file wanted: it has sha256"):
        fetch_coco(tmp_path / "new", annotations_url=bad, published=published, progress=False)
    assert tree(tmp_path / "new") == {}


@pytest.mark.parametrize("position", [0, 1, 700, -1])
@pytest.mark.parametrize("ranges", [True, False])
def test_cut_downloads_end_in_the_same_folder(
    tmp_path: Path, server: Loopback, published: Published, position: int, ranges: bool
) -> None:
    for file in server.files.values():
        file.cuts, file.ranges = [position % len(file.content)], ranges
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: None)
        fetch_coco(tmp_path, published=published, progress=False)
    found = tree(tmp_path)
    found.pop(MANIFEST)
    assert found == whole()
    assert len(server.log) == 4


def test_a_disk_that_is_too_small_is_said_before_anything_is_asked(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    huge = replace(published, images=replace(published.images, unpacked=10**15))
    with pytest.raises(
        InputError, match=r"annotations\.zip and val2017\.zip, packed and unpacked, needs 1000"
    ):
        fetch_coco(tmp_path, published=huge, progress=False)
    assert server.log == []


def test_an_image_that_differs_from_the_archive_is_found(
    server: Loopback, published: Published, own: Path
) -> None:
    Image.new("RGB", (58, 42)).save(own / "val2017" / "000000000002.jpg")
    assert verify_coco(own, published=published, progress=False).faults == ()  # nothing to compare with yet
    (own / "val2017" / "000000000001.jpg").unlink()
    with pytest.raises(InputError, match=r"000000000002\.jpg: its bytes are not those that were fetched"):
        fetch_coco(own, published=published, progress=False)


def test_an_archive_without_what_is_wanted_is_refused(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    content = zipped({CAPTIONS: contents()[0][CAPTIONS]})
    url = server.add("less.zip", content)
    less = archive_of("less.zip", content, url, folder="annotations", only=ANNOTATIONS)
    with pytest.raises(InputError, match=f"does not hold {INSTANCES}, {KEYPOINTS}"):
        fetch_coco(tmp_path, published=replace(published, annotations=less), progress=False)
    assert not (tmp_path / "annotations").exists()


# Interrupted

CHILD = """
    import pickle, signal, sys
    from sd2eval.coco import fetch_coco, show
    from sd2eval.errors import exit_codes, resumable
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    with exit_codes(), resumable():
        show(sys.argv[1], fetch_coco(sys.argv[1], published=pickle.load(sys.stdin.buffer)))
"""


def child(root: Path, published: Published) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(root)]
    environment = {**os.environ, "no_proxy": "*"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(published))
    process.stdin.close()
    process.stdin = None
    return process


def test_ctrl_c_during_a_slow_download_and_the_same_command_finishes(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    slow = server.files["val2017.zip"]
    slow.pause = 0.2
    part = tmp_path / ".val2017.zip.part"
    with child(tmp_path, published) as process:
        deadline = time.monotonic() + 30
        while not part.exists() or not part.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 75
    last = said.decode().splitlines()[-1]
    assert last == "sd2eval: interrupted; what is finished is kept, run the same command again to continue"
    assert not (tmp_path / "val2017").exists()
    assert (tmp_path / CAPTIONS).exists()
    kept = part.stat().st_size
    assert 0 < kept < len(slow.content)
    slow.pause = 0
    server.log.clear()
    with child(tmp_path, published) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"is whole: 6 images" in out
    assert [(request.path, request.range) for request in server.log] == [("val2017.zip", f"bytes={kept}-")]
    found = tree(tmp_path)
    found.pop(MANIFEST)
    assert found == whole()


def test_an_archive_that_was_complete_is_not_asked_for_again(
    tmp_path: Path, server: Loopback, published: Published
) -> None:
    (tmp_path / ".val2017.zip").write_bytes(server.files["val2017.zip"].content)
    (tmp_path / ".unpacking" / CAPTIONS).parent.mkdir(parents=True)
    (tmp_path / ".unpacking" / CAPTIONS).write_bytes(b"of a process that was killed")
    fetch_coco(tmp_path, published=published, progress=False)
    assert asked(server) == ["annotations.zip"]
    found = tree(tmp_path)
    found.pop(MANIFEST)
    assert found == whole()


def test_a_server_that_gives_up_keeps_what_is_finished(
    tmp_path: Path, server: Loopback, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    server.files["val2017.zip"].cuts = [2000] + [0] * 9
    with pytest.raises(Stopped, match=r"val2017\.zip: the connection was cut at 2\.0 kB"):
        fetch_coco(tmp_path, published=published, progress=False)
    assert (tmp_path / CAPTIONS).exists()
    assert not (tmp_path / "val2017").exists()
