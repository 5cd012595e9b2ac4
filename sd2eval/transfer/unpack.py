"""Unpack a zip archive nobody vouches for: nothing outside the folder, nothing but files, no surprises."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from sd2eval.errors import InputError
from sd2eval.transfer.meter import Meter
from sd2eval.transfer.part import writing

BLOCK = 1 << 20


def unpack(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], bool],
    at_most: int,
    progress: bool = True,
) -> dict[str, str]:
    """Write the wanted files of a zip archive below `folder`, which must be new or empty.

    Args:
        archive: the zip file; every member of it is checked, wanted or not.
        folder: where its paths begin.
        wanted: whether the file of this name, as the archive has it, is to be written.
        at_most: bytes that the wanted files may have together.
        progress: show a bar or lines on stderr.

    Returns:
        The SHA-256 of each file that was written, by its name in the archive.

    Raises:
        InputError: not a zip file, damaged, with a member that leads out of the folder, is no plain file, is
            encrypted or there twice, larger than `at_most`, or the folder cannot be written.
    """
    try:
        with writing(folder), zipfile.ZipFile(archive) as opened:
            members = _safe_members(opened, archive)
            chosen = [info for info in members if wanted(info.filename)]
            total = sum(info.file_size for info in chosen)
            if total > at_most:
                raise InputError(f"{archive}: would unpack to {total} bytes, at most {at_most} are expected")
            digests = {}
            with Meter(f"unpacking {archive.name.lstrip('.')}", total, show=progress) as meter:
                for info in chosen:
                    digests[info.filename] = _write(opened, info, folder / info.filename, meter)
            return digests
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive}: not a zip archive that can be read ({error})") from error


def _safe_members(opened: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """Return the members that are files."""
    seen: set[str] = set()
    for info in opened.infolist():
        fault = _fault(info)
        # Two names that differ in case only are one file on some disks.
        fault = fault or ("is in it twice" if info.filename.casefold() in seen else "")
        if fault:
            raise InputError(f"{archive}: refused, because its member {info.orig_filename!r} {fault}")
        seen.add(info.filename.casefold())
    return [info for info in opened.infolist() if not info.is_dir()]


def _fault(info: zipfile.ZipInfo) -> str:
    name = info.orig_filename  # as written: zipfile cuts `filename` at a zero byte
    windows = PureWindowsPath(name)
    if name.startswith("/") or windows.drive or windows.root:
        return "has an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    if not name or "\\" in name or not name.isprintable():
        return "has a name that is no plain path"
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on a system without them
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or another special file"
    return ""


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, meter: Meter) -> str:
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    # zipfile gives no byte beyond the declared size, and raises where the checksum differs.
    with opened.open(info) as source, path.open("xb") as target:
        while block := source.read(BLOCK):
            target.write(block)
            digest.update(block)
            meter.to(meter.done + len(block))
    return digest.hexdigest()
