"""One file by URL: streamed beside its target, resumed, checked, renamed. What is at the target is whole.

Resuming is HTTP's range requests (RFC 9110, section 14) with `If-Range`, so that a file that changed on the
server is never glued to the beginning of its former self.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from sd2eval import __version__
from sd2eval.errors import InputError, Stopped
from sd2eval.transfer.digests import fault_of, parse_digest
from sd2eval.transfer.meter import Meter, format_bytes
from sd2eval.transfer.part import Part

BLOCK = 1 << 20
PASSING = (408, 425, 429)
"""Client errors that go away by themselves; so do all from 500 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server may be silent, and how often in a row it may break off without getting further."""

    silence_seconds: float = 60.0
    tries: int = 5
    pause_seconds: float = 1.0
    """Before the second try; doubled before each further one."""


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    digest: str | None = None,
    progress: bool = True,
    label: str = "",
    patience: Patience | None = None,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Download `url` to `target` and return `target`; a right file that is there already costs no request.

    Args:
        url: http or https.
        target: the file to make; its folder is made too.
        size: bytes it must have, where known.
        digest: `sha256:`, `sha1:` or `md5:` and hexadecimal digits; of a SHA-256 the first 8 or more will do.
        progress: show a bar or lines on stderr.
        label: what the display calls it; else the target's name.
        patience: timeouts and tries.
        headers: sent with the request, but not to where it is redirected (an authorization is for one host).

    Raises:
        InputError: not there, not reachable, not the file wanted, no room, not writable, or another file is
            at `target`; one line that says which.
        Stopped: the connection broke too often; what came is kept, and the next call goes on from there.
    """
    check_url(url)
    if digest:
        parse_digest(digest)  # a mistake is found before anything is sent
    if not target.exists():
        if size is not None:
            need_space(target.parent, size - kept_bytes(target), target.name)
        part = Part(target)
        with part.open(), Meter(label or target.name, show=progress) as meter:
            if not target.exists():  # another process may have finished it just now
                _Transfer(url, part, size, digest, meter, headers or {}).run(patience or Patience())
                return target
    fault = fault_of(target, size=size, digest=digest)
    if fault:
        raise InputError(f"{target}: {fault}; move it away to download {url}")
    return target


def need_space(folder: Path, count: int, what: str) -> None:
    """Refuse to begin what will not fit.

    Args:
        folder: where it goes; need not exist yet.
        count: bytes needed.
        what: what needs them, for the message.

    Raises:
        InputError: the disk of `folder` has less than `count` bytes free.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if free < count:
        need, have = format_bytes(count), format_bytes(free)
        raise InputError(f"{folder}: {what} needs {need}, but the disk has {have} free")


def kept_bytes(target: Path) -> int:
    """Return how much of a target lies on the disk already, whole or in part."""
    there = next((path for path in (target, Part(target).path) if path.exists()), None)
    return there.stat().st_size if there else 0


def check_url(url: str) -> None:
    """Refuse what is no http or https address.

    Raises:
        InputError: it is not.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, an unclosed bracket
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"'{url}': an address must start with http:// or https:// and hold no spaces")


class _Broken(Exception):  # noqa: N818 - becomes Stopped or InputError
    """This try failed and another may not; `offline` where the host's name was not even found."""

    def __init__(self, reason: str, *, offline: bool = False) -> None:
        super().__init__(reason)
        self.offline = offline


class _Transfer:
    """The bytes of one address into one part."""

    def __init__(
        self,
        url: str,
        part: Part,
        size: int | None,
        digest: str | None,
        meter: Meter,
        headers: Mapping[str, str],
    ) -> None:
        self.url, self.part, self.size, self.digest, self.meter = url, part, size, digest, meter
        self.headers = headers

    def run(self, patience: Patience) -> None:
        """Ask until all bytes are there, check them and give the file its name."""
        failures, furthest = 0, self.part.length
        began = furthest
        while self.size is None or self._usable() != self.size:
            try:
                self._ask(patience.silence_seconds)
                break
            except _Broken as broken:
                got_further = self.part.length > furthest
                furthest = max(furthest, self.part.length)
                failures = 1 if got_further else failures + 1
                if failures >= patience.tries or (broken.offline and furthest == began):
                    self._give_up(broken, failures)
                self.meter.say(f"{self.meter.label}: {broken}; trying again")
                time.sleep(patience.pause_seconds * 2 ** (failures - 1))
        self._check()
        self.part.publish()

    def _give_up(self, broken: _Broken, failures: int) -> None:
        tries = f" ({failures} tries)" if failures > 1 else ""
        line = f"{self.url}: {broken}{tries}"
        if self.part.length:
            raise Stopped(f"{line}; {format_bytes(self.part.length)} are there") from broken
        raise InputError(line) from broken

    def _check(self) -> None:
        fault = fault_of(self.part.path, size=self.size, digest=self.digest)
        if fault:
            self.part.delete()
            raise InputError(f"{self.url}: what came is not the file wanted: it {fault}; it was deleted")

    def _ask(self, silence: float) -> None:
        """Send one request for what is missing, and append what comes."""
        offset, version = self._usable(), self.part.version(self.url)
        headers = {"User-Agent": f"sd2eval/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": version} if version else {})
        request = urllib.request.Request(self.url, headers=headers)
        for name, value in self.headers.items():
            request.add_unredirected_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=silence) as response:
                self._receive(response, offset)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error.code, error.reason, error.headers, offset)
        except (OSError, HTTPException) as error:
            raise self._broken(error, silence) from error

    def _usable(self) -> int:
        """Return where to go on: at the end, or at 0 where nothing would tell what the part belongs to."""
        return self.part.length if self.digest or self.part.version(self.url) else 0

    def _refused(self, code: int, reason: str, headers: Message[str, str], offset: int) -> None:
        """Judge an answer that is not the file; return if it says that everything is there already."""
        if code == 416 and offset:
            said = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
            if said and int(said[1]) == offset:
                return
            self._agree_on_size(int(said[1]) if said else None)
            self.part.restart(self.url, "")
            raise _Broken("the server has less than was downloaded before")
        answer = f"the server answers {code} ({reason})"
        if code in PASSING or code >= 500:
            raise _Broken(answer)
        raise InputError(f"{self.url}: {answer}")

    def _broken(self, error: Exception, silence: float) -> Exception:
        """Say what a failed connection means."""
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        host = urlsplit(self.url).hostname
        if isinstance(cause, socket.gaierror):
            return _Broken(f"the name {host} cannot be resolved; is this machine offline?", offline=True)
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message
            return InputError(f"{self.url}: the certificate of {host} is not trusted here ({why})")
        if isinstance(cause, TimeoutError):
            return _Broken(f"nothing came from {host} for {silence:g} s")
        what = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return _Broken(f"the connection to {host} failed ({what})")

    def _receive(self, response: HTTPResponse, offset: int) -> None:
        total = self._total(response, offset)
        self._agree(response, total)
        if response.status != 206:
            if offset:
                self.meter.say(f"{self.meter.label}: changed, or the server cannot resume; starting over")
            offset = 0
            self.part.restart(self.url, _version(response.headers))
        if total is not None:
            need_space(self.part.target.parent, total - offset, self.part.target.name)
            gone_on = f", going on at {format_bytes(offset)}" if offset else ""
            self.meter.say(f"{self.meter.label}: {format_bytes(total)} from {self.url}{gone_on}")
        self.meter.to(offset, total)
        self._append(response, total)

    def _total(self, response: HTTPResponse, offset: int) -> int | None:
        """Return the length of the whole file, where the server says it."""
        if response.status != 206:
            return response.length
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        before, now = self.part.version(self.url), _version(response.headers)
        changed = bool(before and now and before != now)  # a server that does not know If-Range
        if said is None or int(said[1]) != offset or changed:
            self.part.restart(self.url, "")
            raise _Broken("the server answered with another part or version than asked for")
        return int(said[2])

    def _agree_on_size(self, total: int | None) -> None:
        if total is not None and self.size is not None and total != self.size:
            raise InputError(f"{self.url}: the server's file has {total} bytes, not {self.size}")

    def _agree(self, response: HTTPResponse, total: int | None) -> None:
        self._agree_on_size(total)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InputError(f"{self.url}: the server sends it compressed although asked not to")
        if total is None and not (response.chunked or self.size or self.digest):
            raise InputError(f"{self.url}: the server does not say how long the file is")

    def _append(self, response: HTTPResponse, total: int | None) -> None:
        expected = self.size if total is None else total
        while block := response.read1(BLOCK):
            self.part.write(block)
            self.meter.to(self.part.length)
            if expected is not None and self.part.length > expected:
                break  # an endless answer; the size will be refused
        if expected is not None and self.part.length < expected and not response.chunked:
            far = f"{format_bytes(self.part.length)} of {format_bytes(expected)}"
            raise _Broken(f"the connection was cut at {far}")


def _version(headers: Message[str, str]) -> str:
    """Return what `If-Range` can compare: a strong ETag, or else the date; nothing where there is neither."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")
