"""A download is whole or absent, whatever the server, the network and the disk do."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sd2eval.errors import InputError, Stopped
from sd2eval.transfer.digests import fault_of
from sd2eval.transfer.download import Patience, fetch
from tests.loopback import Loopback, serving

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
QUICK = Patience(silence_seconds=0.3, tries=3, pause_seconds=0.01)


@pytest.fixture(autouse=True)
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


def test_an_answer_without_end_is_broken_off(server: Loopback, target: Path) -> None:
    url = server.add("model.bin", CONTENT, says_length=False, silent_after=200_000)
    with pytest.raises(InputError, match="bytes, not 1000"):
        get(url, target, size=1000)
    assert len(server.log) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_size_is_known_before_anything_is_kept_or_lost(
    server: Loopback, target: Path, ranges: bool
) -> None:
    url = server.add("model.bin", CONTENT, cuts=[100_000, 0, 0])
    with pytest.raises(Stopped):
        get(url, target, digest=SHA256)
    page = server.add("portal.html", b"<html>log in</html>", ranges=ranges)
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
