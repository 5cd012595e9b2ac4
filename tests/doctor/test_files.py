"""File systems that are read-only, full, limited or without locks, really or at the system call."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sd2eval import mounts
from sd2eval.doctor import files
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_good_disk_passes_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    found = by_check(files.run_folder(tmp_path / "runs" / "new"))
    assert {name: finding.level for name, finding in found.items()} == {"run_folder": OK, "file_locks": OK}
    assert f"to be made in {tmp_path}" in found["run_folder"].found
    assert list(tmp_path.iterdir()) == []


@contextmanager
def read_only() -> Iterator[Path]:
    """Give a folder in which this process may not write, root's process too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_read_only_run_folder_is_a_problem_that_names_it() -> None:
    with read_only() as folder:
        (finding,) = files.run_folder(folder / "run")
    assert (finding.check, finding.level) == ("run_folder", PROBLEM)
    assert str(folder) in finding.found
    assert "Permission denied" in finding.found
    assert "out=DIR" in finding.advice


def test_a_folder_that_may_not_be_entered_is_a_problem() -> None:
    with read_only() as folder:
        os.seteuid(0) if os.getuid() == 0 else None
        folder.chmod(0o600)
        os.seteuid(65534) if os.getuid() == 0 else None
        (finding,) = files.run_folder(folder / "a" / "run")
    assert (finding.check, finding.level) == ("run_folder", PROBLEM)


@pytest.mark.parametrize(("needed", "level"), [(True, PROBLEM), (False, WARNING)])
def test_a_read_only_cache_is_as_bad_as_it_is_needed(needed: bool, level: str) -> None:
    with read_only() as folder:
        (finding,) = files.cache("weights", "HF_HOME", folder / "hub", needed=needed)
    assert finding.level == level
    assert "set HF_HOME" in finding.advice


def test_a_limit_on_file_sizes_is_met_before_the_sweep_meets_it(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # Python ignores the signal
    try:
        (finding,) = files.run_folder(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert finding.level == PROBLEM
    assert "File too large" in finding.found
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_problem(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from sd2eval.doctor.files import run_folder; "
        f"print(*run_folder(Path({str(tmp_path)!r})))"
    )
    shell = f"mount -t tmpfs -o size=256k tmpfs '{tmp_path}' || exit 77; '{sys.executable}' -c \"$CODE\""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell],
        env=os.environ | {"CODE": code, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip(f"a small disk needs user namespaces: {done.stderr.strip()}")
    assert "level='problem'" in done.stdout, done.stderr
    assert "No space left on device" in done.stdout


def test_a_disk_without_locks_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    finding = by_check(files.run_folder(tmp_path))["file_locks"]
    assert finding.level == PROBLEM
    assert os.strerror(errno.ENOLCK) in finding.found


def test_locks_that_another_process_does_not_see_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # here only: the other process really gets its lock
    finding = by_check(files.run_folder(tmp_path))["file_locks"]
    assert finding.level == PROBLEM
    assert "do not see" in finding.found


@pytest.mark.parametrize(
    ("kind", "options", "level"),
    [
        ("nfs", "rw,nolock,vers=3", WARNING),
        ("nfs4", "rw,local_lock=all", WARNING),
        ("nfs4", "rw,local_lock=none", OK),
        ("lustre", "rw,localflock", WARNING),
        ("lustre", "rw,flock", OK),
    ],
)
def test_locks_of_one_machine_only_are_a_warning(
    kind: str, options: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "with space"
    disk.mkdir()
    table = tmp_path / "mounts"
    point = str(disk).replace(" ", "\\040")
    table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {point} {kind} {options} 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    finding = by_check(files.run_folder(disk / "run"))["file_locks"]
    assert finding.level == level
    assert finding.found.startswith(f"{kind} at")


def test_a_rename_that_replaces_a_published_shard_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "rename", lambda *_: None)
    (finding,) = files.run_folder(tmp_path)
    assert finding.level == PROBLEM
    assert "not empty" in finding.found


def test_a_cache_without_links_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    (finding,) = files.cache("weights", "HF_HOME", tmp_path, needed=True, linked=True)
    assert finding.level == WARNING
    assert "no symbolic links at" in finding.found
    monkeypatch.setattr(os, "link", refuse)
    (finding,) = files.cache("weights", "HF_HOME", tmp_path, needed=True, linked=True)
    assert "no symbolic links and no hard links" in finding.found


def test_a_disk_whose_clock_is_another_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    found = by_check(files.run_folder(tmp_path))
    assert found["clock"].level == WARNING
    assert "+3600 s" in found["clock"].found


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_cannot_flush_is_a_problem(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fsync(_: int) -> None:
        calls.append(1)
        if len(calls) == failing:  # the file, then its folder
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    (finding,) = files.run_folder(tmp_path)
    assert (finding.level, os.strerror(errno.EIO) in finding.found) == (PROBLEM, True)
