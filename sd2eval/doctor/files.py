"""What the file systems under the run folder and the caches really do: tried, in a folder that goes away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding, reason
from sd2eval.mounts import mount, no_locks

TEMPORARY = ".tmp-doctor-"
"""As `store.TEMPORARY`: what a killed doctor leaves in a run folder is removed by the next sweep."""
SIZE = 1 << 20
"""Bytes that are written: a limit or a full disk shows."""
SKEW_SECONDS = 5.0

OTHER_PROCESS = """
import fcntl, sys
with open(sys.argv[1], "a") as stream:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(3)
"""
"""Ends with 3 where the lock of the process that started it is seen, as it must be."""


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a temporary folder inside `folder`, or inside what exists above it, and remove it again."""
    made = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=existing(folder)))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    absolute = folder.expanduser().absolute()
    return next((place for place in (absolute, *absolute.parents) if _is_folder(place)), absolute)


def _is_folder(place: Path) -> bool:
    try:
        return place.is_dir()
    except OSError:  # inside a folder that may not be entered
        return False


def run_folder(folder: Path) -> Iterator[Finding]:
    """Write, rename, publish and lock as a sweep does."""
    where = existing(folder)
    shown = f"{folder}" if where == folder.absolute() else f"{folder} (to be made in {where})"
    try:
        with scratch(folder) as place:
            write(place)
            publish(place)
            late = place.stat().st_mtime - time.time()
            findings = [Finding("run_folder", OK, f"{shown}: written, flushed, renamed", about=str(folder))]
            findings += [_skewed(folder, late)] if abs(late) > SKEW_SECONDS else []
            findings += list(locks("file_locks", folder, place))
    except OSError as error:
        advice = "give a folder of yours on a disk with room: out=DIR"
        found = f"{folder}: cannot be used ({reason(error)})"
        findings = [Finding("run_folder", PROBLEM, found, advice, about=str(folder))]
    yield from findings


def _skewed(folder: Path, late: float) -> Finding:
    found = f"files in {existing(folder)} get times {late:+.0f} s from this machine's clock"
    return Finding("clock", WARNING, found, "set the clocks (NTP); no result depends on them", str(folder))


def write(place: Path) -> None:
    """Write a file, flush it and its folder to the disk, and rename it over another.

    Raises:
        OSError: the file system cannot.
    """
    target, temporary = place / "target", place / "temporary"
    target.write_bytes(b"before")
    data = os.urandom(SIZE)
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(target)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if target.read_bytes() != data:
        raise OSError(0, "what was written is not what is read")


def publish(place: Path) -> None:
    """Make sure that a finished folder cannot be replaced by a rename, which is how shards are published.

    Raises:
        OSError: it can.
    """
    first, second = place / "first", place / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "manifest.json").write_text(folder.name)
    try:
        second.rename(first)
    except OSError:
        return
    raise OSError(0, "a rename replaces a folder that is not empty")


def locks(check: str, folder: Path, place: Path) -> Iterator[Finding]:
    """Take a lock, and see whether another process is kept out."""
    import fcntl

    kind, options = mount(existing(folder))
    about = str(folder)
    try:
        with (place / "lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other = subprocess.run([sys.executable, "-c", OTHER_PROCESS, stream.name], check=False).returncode
    except OSError as error:
        yield Finding(check, PROBLEM, *no_locks(kind, folder, error), about)
        return
    if other != 3:
        found = f"{kind} at {folder} takes locks that other processes do not see"
        yield Finding(check, PROBLEM, found, "use another disk: two sweeps could write one run", about)
    elif local := {"nolock", "local_lock=all", "local_lock=flock", "localflock"} & options:
        found = f"{kind} at {folder} is mounted with {min(local)}: other machines do not see its locks"
        yield Finding(check, WARNING, found, "never run one sweep on two machines there", about)
    else:
        yield Finding(check, OK, f"{kind} at {existing(folder)} keeps a second writer out", about=about)


def links(place: Path) -> list[str]:
    """Return which kinds of links the file system does not have."""
    file = place / "file"
    file.write_text("")
    tries: dict[str, Callable[[Path], object]] = {
        "symbolic links": lambda name: name.symlink_to(file),
        "hard links": lambda name: name.hardlink_to(file),
    }
    missing = []
    for number, (kind, make) in enumerate(tries.items()):
        try:
            make(place / str(number))
        except OSError:
            missing.append(kind)
    return missing


def cache(name: str, variable: str, folder: Path, *, needed: bool, linked: bool = False) -> Iterator[Finding]:
    """Write into a cache folder and lock in it.

    Args:
        name: what it keeps, for the line.
        variable: the environment variable that moves it.
        folder: the cache.
        needed: whether the sweep cannot do without writing there.
        linked: whether links are used in it.
    """
    try:
        with scratch(folder) as place:
            write(place)
            missing = links(place) if linked else []
            locked = [finding for finding in locks("caches", folder, place) if finding.level != OK]
    except OSError as error:
        level = PROBLEM if needed else WARNING
        found = f"{name}: {folder} cannot be written ({reason(error)})"
        yield Finding("caches", level, found, f"set {variable} to a folder of yours", about=variable)
        return
    if missing:
        found = f"{name}: no {' and no '.join(missing)} at {folder}"
        yield Finding("caches", WARNING, found, f"files are kept twice; {variable} moves it", about=variable)
    yield from locked
    if not missing and not locked:
        yield Finding("caches", OK, f"{name}: {folder} can be written", about=variable)
