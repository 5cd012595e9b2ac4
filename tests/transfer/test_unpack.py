"""Nothing in an archive gets out of the folder it is unpacked to."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from sd2eval.errors import InputError
from sd2eval.transfer.unpack import unpack

GOOD = b"good " * 1000


def make(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def everything(name: str) -> bool:
    return True


def take(archive: Path, folder: Path, at_most: int = 10**6) -> dict[str, str]:
    return unpack(archive, folder, wanted=everything, at_most=at_most, progress=False)


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def test_wanted_files_are_written_with_their_digests(tmp_path: Path, out: Path) -> None:
    archive = make(tmp_path / "a.zip", ("a/", b""), ("a/b.txt", GOOD), ("c.txt", b"c"), ("a/empty", b""))
    digests = unpack(
        archive, out, wanted=lambda name: name.startswith("a/"), at_most=len(GOOD), progress=False
    )
    assert digests == {
        "a/b.txt": hashlib.sha256(GOOD).hexdigest(),
        "a/empty": hashlib.sha256(b"").hexdigest(),
    }
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == ["a", "a/b.txt", "a/empty"]
    assert (out / "a/b.txt").read_bytes() == GOOD


NAMES = {
    "../x": "leads out",
    "a/../../x": "leads out",
    "a/..": "leads out",
    "/x": "absolute",
    "//x": "absolute",
    "C:/x": "absolute",
    "C:x": "absolute",
    "\\x": "absolute",
    "a\\..\\..\\x": "no plain path",
    "a\nb": "no plain path",
    "a\x1b[2Jb": "no plain path",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_name_that_is_no_plain_path_inside_is_refused_before_anything_is_written(
    tmp_path: Path, out: Path, name: str, wanted: bool
) -> None:
    archive = make(tmp_path / "a.zip", ("good.txt", GOOD), (name, b"bad"))
    with pytest.raises(InputError) as error:
        unpack(archive, out, wanted=lambda member: wanted, at_most=10**6, progress=False)
    assert NAMES[name] in str(error.value)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path, out: Path) -> None:
    archive = make(tmp_path / "a.zip", ("good.txtZ/../x", GOOD))
    archive.write_bytes(archive.read_bytes().replace(b"txtZ", b"txt\0"))
    with pytest.raises(InputError, match="refused"):
        take(archive, out)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(tmp_path: Path, out: Path, kind: int) -> None:
    archive = make(tmp_path / "a.zip", (special("link", kind), b"/etc/passwd"), ("link/x", GOOD))
    with pytest.raises(InputError, match="'link' is a link or another special file"):
        take(archive, out)
    assert not out.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.txt", "a.txt"), ("a.txt", "A.TXT")])
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, out: Path, names: tuple[str, str]) -> None:
    archive = make(tmp_path / "a.zip", (names[0], GOOD), (names[1], b"other"))
    with pytest.raises(InputError, match="is in it twice"):
        take(archive, out)
    assert not out.exists()


def test_an_encrypted_member_is_refused(tmp_path: Path, out: Path) -> None:
    archive = make(tmp_path / "a.zip", ("a.txt", GOOD))
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # the flags in the directory
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="is encrypted"):
        take(archive, out)


def test_more_than_is_expected_is_refused_before_anything_is_written(tmp_path: Path, out: Path) -> None:
    archive = make(tmp_path / "bomb.zip", ("zeros", bytes(10**7)))
    assert archive.stat().st_size < 20_000
    with pytest.raises(InputError, match="would unpack to 10000000 bytes, at most 1000000 are expected"):
        take(archive, out)
    assert not out.exists()


def test_more_than_a_member_declares_is_never_written(tmp_path: Path, out: Path) -> None:
    archive = make(tmp_path / "liar.zip", ("zeros", bytes(10**7)))
    raw = bytearray(archive.read_bytes())
    for mark, place in (
        (b"PK\x01\x02", 24),
        (b"PK\x03\x04", 22),
    ):  # sizes in the directory and before the data
        struct.pack_into("<I", raw, raw.index(mark) + place, 1000)
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="not a zip archive that can be read"):
        take(archive, out)
    assert (out / "zeros").stat().st_size <= 1000


def test_damage_is_found(tmp_path: Path, out: Path) -> None:
    archive = make(tmp_path / "a.zip", (zipfile.ZipInfo("stored"), GOOD))
    raw = bytearray(archive.read_bytes())
    raw[raw.index(GOOD) + 7] ^= 1
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="CRC"):
        take(archive, out)


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_what_is_no_archive_or_cut_off_gets_one_line(tmp_path: Path, out: Path, keep: float) -> None:
    archive = make(tmp_path / "a.zip", ("a.txt", GOOD))
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(keep * len(raw)) if keep == 0.5 else int(keep)])
    with pytest.raises(InputError, match=r"a\.zip: not a zip archive that can be read"):
        take(archive, out)
    assert not out.exists()


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written"):
        take(make(tmp_path / "a.zip", ("a.txt", GOOD)), tmp_path / "file")
