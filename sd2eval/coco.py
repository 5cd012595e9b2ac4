"""COCO 2017 validation: fetch the published archives into the usual layout, and check such a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sd2eval.coco_check import (
    MANIFEST,
    SCHEMA_VERSION,
    Condition,
    Fault,
    Layout,
    check_annotations,
    check_folder,
    read_manifest,
)
from sd2eval.errors import InputError
from sd2eval.store import write_bytes
from sd2eval.transfer import download
from sd2eval.transfer.part import alone, writing
from sd2eval.transfer.unpack import unpack

DEFAULT_ROOT = Path("datasets/coco")
STAGE = ".unpacking"
NAMED = 5
"""Faults that are named; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A published zip file."""

    name: str
    url: str
    size: int
    digest: str
    """As `download.fetch` takes it."""
    folder: str
    """What is taken from it lies in this one folder, in the archive as in the data set."""
    only: tuple[str, ...] = ()
    """Names of the files to take; empty for all in the folder."""
    unpacked: int
    """Bytes that these need at most."""

    def wants(self, name: str) -> bool:
        """Return whether the file of this name is taken."""
        return name in self.only if self.only else name.startswith(f"{self.folder}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set as its authors publish it."""

    annotations: Archive
    images: Archive
    layout: Layout


# The authors publish no digests. Size and SHA-256 of both archives, and the SHA-256 of the instances, stand
# in many independent public recipes, which agree. That of the captions was measured on the complete file with
# 5,000 images and 25,014 captions. Of the person keypoints none was found: it is recorded by the first fetch.
FILES = {
    "annotations/captions_val2017.json": "1018a8760deaf1fc71be2f1b8da1a1348b9c35994af4322ca2fd795a78abb79c",
    "annotations/instances_val2017.json": "e8c7f7908f1d7278341fae127d0da654f102f11bd7b21d8aeefa635b8c810b6f",
    "annotations/person_keypoints_val2017.json": "",
}
COCO_2017_VALIDATION = Published(
    annotations=Archive(
        name="annotations_trainval2017.zip",
        url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        size=252_907_541,
        digest="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        folder="annotations",
        only=tuple(FILES),
        unpacked=50_000_000,
    ),
    images=Archive(
        name="val2017.zip",
        url="http://images.cocodataset.org/zips/val2017.zip",
        size=815_585_330,
        digest="sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        folder="val2017",
        unpacked=850_000_000,
    ),
    layout=Layout(captions="annotations/captions_val2017.json", images="val2017", files=FILES),
)


def fetch_coco(
    root: str | Path = DEFAULT_ROOT,
    images_url: str = "",
    annotations_url: str = "",
    *,
    keep_archives: bool = False,
    progress: bool = True,
    published: Published = COCO_2017_VALIDATION,
) -> Condition:
    """Complete a folder with the images and annotations of COCO 2017 validation, and check all of it.

    What is there and right is not fetched again; what is there and wrong is left alone and refused.

    Args:
        root: the folder; gets `annotations/` and `val2017/`.
        images_url: where the images' archive is instead of its published address; its digest still decides.
        annotations_url: the same for the annotations' archive.
        keep_archives: leave the archives in `root`.
        progress: show what is going on, on stderr.
        published: the archives and what they hold.

    Raises:
        InputError: something cannot be fetched, or something is there and wrong; one line that says what.
        Stopped: the connection broke too often; the next call goes on.
    """
    root, layout = Path(root), published.layout
    annotations = _from(annotations_url, published.annotations)
    images = _from(images_url, published.images)
    with alone(root):
        absent = [file for file in layout.files if not (root / file).exists()]
        _refuse(root, check_annotations(root, layout))
        begun = [annotations] * bool(absent) + [images] * (not (root / images.folder).exists())
        _need_space(root, begun)
        if absent:
            _take(root, annotations, keep_archives, progress)
        condition = check_folder(root, layout, progress=progress)
        _refuse(root, condition.wrong)
        if condition.missing:
            _take(root, images, keep_archives, progress)
            condition = check_folder(root, layout, progress=progress)
            _refuse(root, condition.faults)
    return condition


def verify_coco(
    root: str | Path = DEFAULT_ROOT,
    *,
    progress: bool = True,
    published: Published = COCO_2017_VALIDATION,
) -> Condition:
    """Check a folder that holds COCO 2017 validation, whoever made it; nothing is written.

    Raises:
        InputError: there is no such folder, or it has no captions that can be read.
    """
    return check_folder(Path(root), published.layout, progress=progress)


def show(root: str | Path, condition: Condition) -> None:
    """Print what a check found, faults first; the first few by name.

    Raises:
        InputError: the folder is not whole; one line of verdict.
    """
    for title, faults in (("missing", condition.missing), ("wrong", condition.wrong)):
        for fault in faults[:NAMED]:
            print(f"{title}: {fault.file if title == 'missing' else fault}")
        if len(faults) > NAMED:
            print(f"{title}: {len(faults) - NAMED:,} more")
    if condition.absent:
        print(f"not there, and not needed for a sweep: {', '.join(condition.absent)}")
    if condition.compared:
        print(f"{condition.compared:,} files have the digests that were recorded when they were fetched")
    counts = f"{condition.images:,} images, {condition.captions:,} captions"
    if condition.faults:
        missing, wrong = len(condition.missing), len(condition.wrong)
        raise InputError(f"{root}: not whole: {missing:,} missing, {wrong:,} wrong ({counts} expected)")
    print(f"{root} is whole: {counts}; data=coco data.root={root}")


def _from(url: str, archive: Archive) -> Archive:
    if not url:
        return archive
    download.check_url(url)
    return replace(archive, url=url)


def _refuse(root: Path, faults: Sequence[Fault]) -> None:
    if faults:
        more = f" (and {len(faults) - 1:,} more: data verify names them)" if len(faults) > 1 else ""
        raise InputError(f"{root}: {faults[0]}{more}; move it away and run this again")


def _place_of(root: Path, archive: Archive) -> Path:
    """Return the archive that the user has in the folder, or the hidden name of the one that is ours."""
    own = root / archive.name
    return own if own.exists() else root / f".{archive.name}"


def _need_space(root: Path, archives: Sequence[Archive]) -> None:
    count = sum(a.size - download.kept_bytes(_place_of(root, a)) + a.unpacked for a in archives)
    names = " and ".join(archive.name for archive in archives)
    download.need_space(root, count, f"{names}, packed and unpacked,")


def _take(root: Path, archive: Archive, keep: bool, progress: bool) -> None:
    """Download an archive, and add what the folder does not have yet."""
    _need_space(root, [archive])
    path = _place_of(root, archive)
    size, digest = archive.size, archive.digest
    download.fetch(archive.url, path, size=size, digest=digest, progress=progress, label=archive.name)
    target = root / archive.folder
    # On the same disk as what is there, which may be a link to another one.
    stage = (target if target.exists() else root) / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a process that was killed
    try:
        digests = unpack(path, stage, wanted=archive.wants, at_most=archive.unpacked, progress=progress)
        lacking = sorted({*archive.only} - {*digests})
        if lacking or not digests:
            raise InputError(f"{path}: does not hold {', '.join(lacking) or archive.folder}")
        with writing(root):
            _record(root, digests)
            _add(stage / archive.folder, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if path.name != archive.name:
        with writing(path):
            path.replace(root / archive.name) if keep else path.unlink()


def _record(root: Path, digests: Mapping[str, str]) -> None:
    """Add to the manifest; before the files appear, so that none is ever there without its digest."""
    files = dict(sorted({**read_manifest(root), **digests}.items()))
    data = {"schema_version": SCHEMA_VERSION, "files": files}
    write_bytes(root / MANIFEST, (json.dumps(data, indent=0) + "\n").encode())


def _add(source: Path, target: Path) -> None:
    """Rename the folder, or where there is one already, the files that it lacks."""
    if not target.exists():
        source.rename(target)
        return
    for file in sorted(source.iterdir()):
        if not (target / file.name).exists():
            file.rename(target / file.name)
