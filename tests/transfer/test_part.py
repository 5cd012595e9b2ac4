"""A file in the making has one writer, and keeps what came when the disk ends."""

from __future__ import annotations

import hashlib
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from sd2eval.errors import InputError
from sd2eval.transfer import part
from sd2eval.transfer.download import Patience, fetch, need_space
from sd2eval.transfer.part import Part, alone
from tests.loopback import Loopback

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
QUICK = Patience(silence_seconds=0.3, tries=3, pause_seconds=0.01)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "model.bin"


def get(url: str, target: Path, **how: Any) -> Path:
    return fetch(url, target, **{"patience": QUICK, "progress": False} | how)


def files(target: Path) -> list[str]:
    """Names in the target's folder."""
    return sorted(entry.name for entry in target.parent.iterdir()) if target.parent.exists() else []


def test_a_disk_that_is_too_small_is_said_before_anything_is_asked(server: Loopback, target: Path) -> None:
    with pytest.raises(InputError, match=r"model\.bin needs 1000\.0 TB, but the disk has .* free"):
        get(server.add("model.bin", CONTENT), target, size=10**15)
    assert server.log == []
    with pytest.raises(InputError, match=r"needs 1000\.0 TB"):
        need_space(target.parent / "not" / "yet", 10**15, "it")


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, says_length=False, headers={"Content-Length": str(10**15)})
    with pytest.raises(InputError, match=r"needs 1000\.0 TB"):
        get(url, target)
    assert files(target) == []


def test_a_disk_that_fills_up_keeps_what_fits(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # Python ignores the signal
    try:
        with pytest.raises(InputError, match=r"model\.bin: cannot be written \(File too large\)"):
            get(url, target, digest=SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not target.exists()
    get(url, target, digest=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.log[-1].range == "bytes=100000-"


def test_a_folder_that_cannot_be_made_is_named(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/model\.bin: cannot be written \(File exists: .*/file\)"):
        get(server.add("model.bin", CONTENT), tmp_path / "file" / "model.bin")
    assert server.log == []


def test_two_writers_of_one_file_do_not_meet(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT)
    with Part(target).open(), pytest.raises(InputError, match="another process is writing it"):
        get(url, target)
    get(url, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_its_holder_ended_meanwhile_is_begun_anew(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ended = part._lock, []

    def lock(descriptor: int, path: Path) -> None:
        if not ended:  # between opening and locking
            ended.append(Part(target).path.unlink())
        real(descriptor, path)

    monkeypatch.setattr(part, "_lock", lock)
    mine = Part(target)
    with mine.open():
        mine.write(CONTENT)
        mine.publish()
    assert ended == [None]
    assert target.read_bytes() == CONTENT


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    with (
        alone(tmp_path / "data"),
        pytest.raises(InputError, match="another process"),
        alone(tmp_path / "data"),
    ):
        pass
    with alone(tmp_path / "data"):
        pass
    assert list((tmp_path / "data").iterdir()) == []
