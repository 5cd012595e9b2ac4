"""A download that was cut, stopped or killed goes on where it was."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from sd2eval.errors import Stopped
from sd2eval.transfer.digests import file_digest
from sd2eval.transfer.download import Patience, fetch
from sd2eval.transfer.part import Part
from tests.loopback import Loopback

ROOT = Path(__file__).parents[2]
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


# Cut


@pytest.mark.parametrize("position", [0, 1, 4095, 4096, 150_000, len(CONTENT) - 1])
@pytest.mark.parametrize("known", [{}, {"digest": SHA256}])
def test_a_cut_connection_is_gone_on_with_from_the_last_byte(
    server: Loopback, target: Path, position: int, known: dict[str, Any]
) -> None:
    url = server.add("model.bin", CONTENT, cuts=[position])
    get(url, target, **known)
    assert target.read_bytes() == CONTENT
    first, second = server.log
    assert first.range is None
    assert second.range == (f"bytes={position}-" if position else None)
    assert second.if_range == (server.files["model.bin"].version if position else None)
    assert files(target) == ["model.bin"]


@pytest.mark.parametrize("position", [1, 4096, 299_999])
def test_a_server_that_ignores_range_is_asked_for_everything_again(
    server: Loopback, target: Path, position: int
) -> None:
    get(server.add("model.bin", CONTENT, cuts=[position], ranges=False), target)
    assert target.read_bytes() == CONTENT
    assert len(server.log) == 2


def test_a_cut_in_a_chunked_answer_is_noticed(server: Loopback, target: Path) -> None:
    get(server.add("model.bin", CONTENT, cuts=[70_000], chunked=True), target)
    assert target.read_bytes() == CONTENT
    assert [asked.range for asked in server.log] == [None, "bytes=70000-"]


def test_many_cuts_are_survived_as_long_as_each_try_gets_further(server: Loopback, target: Path) -> None:
    get(server.add("model.bin", CONTENT, cuts=[30_000] * 9), target)
    assert target.read_bytes() == CONTENT
    assert len(server.log) == 10


def test_a_server_that_always_cuts_ends_in_a_stop_that_keeps_what_came(
    server: Loopback, target: Path
) -> None:
    url = server.add("model.bin", CONTENT, cuts=[100_000, 0, 0, 0, 0])
    with pytest.raises(Stopped) as error:
        get(url, target, digest=SHA256)
    assert "cut at 100.0 kB of 300.0 kB (3 tries)" in str(error.value)
    assert files(target) == [".model.bin.part", ".model.bin.part.json"]
    server.files["model.bin"].cuts.clear()
    server.log.clear()
    get(url, target, digest=SHA256)
    assert target.read_bytes() == CONTENT
    assert [asked.range for asked in server.log] == ["bytes=100000-"]


def test_cuts_before_the_same_byte_do_not_go_on_for_ever(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, cuts=[5000] * 50, ranges=False)
    with pytest.raises(Stopped):
        get(url, target)
    assert len(server.log) == QUICK.tries


def test_without_etag_date_or_digest_nothing_is_glued(server: Loopback, target: Path) -> None:
    get(server.add("model.bin", CONTENT, cuts=[100_000], etag=""), target)
    assert target.read_bytes() == CONTENT
    assert [asked.range for asked in server.log] == [None, None]


def test_a_digest_allows_resuming_from_a_server_that_names_no_version(server: Loopback, target: Path) -> None:
    get(server.add("model.bin", CONTENT, cuts=[100_000], etag=""), target, digest=SHA256)
    assert [asked.range for asked in server.log] == [None, "bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_a_weak_etag_is_no_version_but_the_date_is(server: Loopback, target: Path) -> None:
    date = "Sat, 01 Sep 2018 12:00:00 GMT"
    get(server.add("model.bin", CONTENT, cuts=[100_000], etag='W/"1"', date=date), target)
    assert server.log[1].if_range == date
    assert target.read_bytes() == CONTENT


def test_a_file_that_was_complete_when_the_process_died_is_only_checked(
    server: Loopback, target: Path
) -> None:
    url = server.add("model.bin", CONTENT)
    target.parent.mkdir()
    Part(target).path.write_bytes(CONTENT)
    get(url, target, size=len(CONTENT), digest=SHA256)
    assert server.log == []
    target.unlink()
    Part(target).path.write_bytes(CONTENT)
    get(url, target, digest=SHA256)  # the size is the server's to say: 416
    assert [asked.range for asked in server.log] == ["bytes=300000-"]
    assert target.read_bytes() == CONTENT


# Interrupted

CHILD = """
    import signal, sys
    from pathlib import Path
    from sd2eval.transfer.download import fetch
    from sd2eval.errors import exit_codes, resumable
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    with exit_codes(), resumable():
        fetch(sys.argv[1], Path(sys.argv[2]), digest=sys.argv[3], label="weights")
"""


def child(url: str, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), url, str(target), SHA256]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "no_proxy": "*"}
    )


def wait_for_bytes(path: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < count:
        assert time.monotonic() < deadline, "the download does not get going"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 75), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_process_is_gone_on_with(
    server: Loopback, target: Path, number: signal.Signals, code: int
) -> None:
    url = server.add("model.bin", CONTENT, pause=0.05)
    with child(url, target) as process:
        wait_for_bytes(Part(target).path, 20_000)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert not target.exists()
    if number == signal.SIGINT:
        stopped, last = said.splitlines()[-2:]
        assert stopped.startswith("weights: stopped at ")
        assert last.startswith("sd2eval: interrupted; ")
        assert last.endswith("run the same command again to continue")
    kept = Part(target).path.stat().st_size
    server.files["model.bin"].pause = 0
    with child(url, target) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said == f"weights: 300.0 kB from {url}, going on at {kept / 1000:.1f} kB\n"
    assert target.read_bytes() == CONTENT
    assert server.log[-1].range == f"bytes={kept}-"
    assert file_digest(target) == SHA256.removeprefix("sha256:")
