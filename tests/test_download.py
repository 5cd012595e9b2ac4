"""A download is whole or absent, whatever the server, the network and the disk do."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sd2eval.digests import fault_of, file_digest
from sd2eval.download import Patience, fetch, need_space
from sd2eval.errors import InputError, Stopped
from sd2eval.part import Part, alone
from tests.loopback import Loopback, serving

ROOT = Path(__file__).parents[1]
CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
QUICK = Patience(silence_seconds=0.3, tries=3, pause_seconds=0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as loopback:
        yield loopback


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "model.bin"


def get(url: str, target: Path, **how: Any) -> Path:
    return fetch(url, target, **{"patience": QUICK, "progress": False} | how)


def files(target: Path) -> list[str]:
    """Names in the target's folder."""
    return sorted(entry.name for entry in target.parent.iterdir()) if target.parent.exists() else []


def line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# Whole


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"size": len(CONTENT)},
        {"digest": SHA256},
        {"digest": SHA256.upper().replace("SHA", "sha")},
        {"digest": SHA256[: len("sha256:") + 8]},
        {"digest": f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"},
        {"digest": f"md5:{hashlib.md5(CONTENT).hexdigest()}", "size": len(CONTENT)},
    ],
)
@pytest.mark.parametrize("how", [{}, {"chunked": True}, {"ranges": False, "etag": ""}])
def test_what_arrives_is_what_is_served(
    server: Loopback, target: Path, known: dict[str, Any], how: dict[str, Any]
) -> None:
    url = server.add("model.bin", CONTENT, **how)
    assert get(url, target, **known) == target
    assert target.read_bytes() == CONTENT
    assert files(target) == ["model.bin"]
    assert len(server.log) == 1


def test_a_file_that_is_there_and_right_costs_no_request(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT)
    get(url, target)
    server.log.clear()
    assert get(url, target, size=len(CONTENT), digest=SHA256) == target
    assert server.log == []


def test_another_file_at_the_target_is_refused_and_left_alone(server: Loopback, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(OTHER)
    with pytest.raises(InputError) as error:
        get(server.add("model.bin", CONTENT), target, digest=SHA256)
    assert str(target) in line(error)
    assert "move it away" in line(error)
    assert target.read_bytes() == OTHER
    assert server.log == []


def test_redirects_are_followed_also_when_resuming(server: Loopback, target: Path) -> None:
    final = server.add("final", CONTENT, cuts=[100_000])
    server.redirects["first"] = final
    get(server.url("first"), target, digest=SHA256)
    assert target.read_bytes() == CONTENT
    assert [asked.range for asked in server.log if asked.path == "final"] == [None, "bytes=100000-"]


def test_an_authorization_does_not_follow_a_redirect(server: Loopback, target: Path) -> None:
    server.redirects["first"] = server.add("final", CONTENT)
    get(server.url("first"), target, headers={"Authorization": "Bearer secret"})
    assert [(asked.path, asked.authorization) for asked in server.log] == [
        ("first", "Bearer secret"),
        ("final", None),
    ]


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
    assert "cut at 100.0 kB of 300.0 kB (3 tries)" in line(error)
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


# Altered


def test_altered_content_is_refused_and_the_next_call_starts_anew(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", OTHER)
    with pytest.raises(InputError) as error:
        get(url, target, digest=SHA256)
    assert hashlib.sha256(OTHER).hexdigest() in line(error)
    assert SHA256.removeprefix("sha256:") in line(error)
    assert files(target) == []
    server.add("model.bin", CONTENT)
    get(url, target, digest=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("how", [{}, {"knows_if_range": False}, {"ranges": False}])
def test_a_file_that_changed_between_two_calls_is_never_glued(
    server: Loopback, target: Path, how: dict[str, Any]
) -> None:
    url = server.add("model.bin", OTHER, cuts=[100_000, 0, 0])
    with pytest.raises(Stopped):
        get(url, target)
    server.add("model.bin", CONTENT, **how)
    get(url, target)
    assert target.read_bytes() == CONTENT


def test_a_file_that_became_shorter_is_fetched_anew(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, cuts=[100_000, 0, 0])
    with pytest.raises(Stopped):
        get(url, target)
    server.add("model.bin", OTHER[:50_000], knows_if_range=False)
    get(url, target)
    assert target.read_bytes() == OTHER[:50_000]


def test_the_beginning_of_another_address_is_not_gone_on_with(server: Loopback, target: Path) -> None:
    with pytest.raises(Stopped):
        get(server.add("other.bin", OTHER, cuts=[100_000, 0, 0], etag='"1"'), target)
    get(server.add("model.bin", CONTENT, etag='"1"'), target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
@pytest.mark.parametrize("how", [{}, {"chunked": True}])
def test_a_wrong_size_is_refused(server: Loopback, target: Path, size: int, how: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"300000 bytes, not {size}"):
        get(server.add("model.bin", CONTENT, **how), target, size=size)
    assert files(target) == []


def test_a_wrong_size_is_known_before_anything_is_kept_or_lost(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, cuts=[100_000, 0, 0])
    with pytest.raises(Stopped):
        get(url, target, digest=SHA256)
    page = server.add("portal.html", b"<html>log in</html>")
    with pytest.raises(InputError, match="19 bytes"):
        get(page, target, digest=SHA256, size=len(CONTENT))
    get(url, target, digest=SHA256)
    assert server.log[-1].range == "bytes=100000-"


def test_an_answer_of_unknown_length_needs_a_size_or_a_digest(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, says_length=False)
    with pytest.raises(InputError, match="does not say how long"):
        get(url, target)
    get(url, target, digest=SHA256)
    assert target.read_bytes() == CONTENT


def test_an_answer_of_unknown_length_that_ends_early_is_a_cut(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, says_length=False, cuts=[100_000])
    get(url, target, size=len(CONTENT), digest=SHA256)
    assert target.read_bytes() == CONTENT
    assert len(server.log) == 2


def test_a_compressed_answer_is_refused(server: Loopback, target: Path) -> None:
    with pytest.raises(InputError, match="compressed"):
        get(server.add("model.bin", CONTENT, headers={"Content-Encoding": "gzip"}), target)
    assert files(target) == []


# Refused, unreachable, slow


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_named(server: Loopback, target: Path, status: int) -> None:
    url = server.add("model.bin", CONTENT, statuses=[status])
    with pytest.raises(InputError) as error:
        get(url, target)
    assert url in line(error)
    assert str(status) in line(error)
    assert len(server.log) == 1
    assert files(target) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_error_is_tried_again(server: Loopback, target: Path, status: int) -> None:
    get(server.add("model.bin", CONTENT, statuses=[status, status]), target)
    assert target.read_bytes() == CONTENT
    assert len(server.log) == 3


def test_an_error_that_stays_ends_in_one_line(server: Loopback, target: Path) -> None:
    with pytest.raises(InputError, match=r"500 .* \(3 tries\)"):
        get(server.add("model.bin", CONTENT, statuses=[500] * 9), target)
    assert len(server.log) == 3
    assert files(target) == []


def test_silence_is_a_broken_connection(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, silent_after=200_000)
    get(url, target)
    assert target.read_bytes() == CONTENT
    assert [asked.range for asked in server.log] == [None, "bytes=200000-"]


def test_a_server_that_stays_silent_ends_in_a_stop(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, silent_after=0)
    with pytest.raises(InputError, match=r"nothing came from 127.0.0.1 for 0.3 s \(3 tries\)"):
        get(url, target)


def test_a_name_that_does_not_resolve_is_said_at_once(target: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(
        InputError, match=r"nowhere\.invalid cannot be resolved; is this machine offline"
    ) as error:
        get("http://nowhere.invalid/model.bin", target, patience=Patience(pause_seconds=30))
    assert time.monotonic() - begin < 20
    assert "tries" not in line(error)
    assert files(target) == []


def test_nobody_there_is_said(target: Path) -> None:
    with serving() as loopback:
        url = loopback.url("model.bin")
    with pytest.raises(InputError, match=r"failed \(Connection refused\) \(3 tries\)"):
        get(url, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "model.bin",
        "ftp://a/b",
        "file:///etc/passwd",
        "http://",
        "http://a b/c",
        "http://a:x/",
        "http://ä/",
    ],
)
def test_what_is_no_address_is_refused(target: Path, url: str) -> None:
    with pytest.raises(InputError, match="an address must start with http"):
        get(url, target)
    assert files(target) == []


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:1234567", "md5:1234567890", "crc:12345678", "1" * 64]
)
def test_what_is_no_digest_is_a_mistake_of_the_caller(target: Path, digest: str) -> None:
    with pytest.raises(ValueError, match="is not sha256:, sha1: or md5:"):
        fault_of(target, digest=digest or "x")


# Disk


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


# Two at once


def test_two_writers_of_one_file_do_not_meet(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT)
    with Part(target).open(), pytest.raises(InputError, match="another process is writing it"):
        get(url, target)
    get(url, target)
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


# A process of its own

CHILD = """
    import sys
    from pathlib import Path
    from sd2eval.download import fetch
    from sd2eval.errors import exit_codes
    with exit_codes():
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
