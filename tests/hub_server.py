"""A loopback hub: the part of the Hugging Face hub's protocol that downloads use, with faults on demand.

Large files (Git LFS on the real hub) are answered with a redirect to another host name, as the real one sends
them to its delivery network; small ones come directly. What the server was asked is in `log`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "Bearer hf_loopback"


@dataclass
class Faults:
    """What goes wrong; every one is off."""

    cut_after: int | None = None
    """Bytes of a body after which the connection ends; once."""
    stall_after: int | None = None
    """Bytes of a body after which nothing more comes until the server is closed."""
    corrupt: bool = False
    """One byte of every large file differs from what its digest says."""
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests."""
    silent: bool = False
    """Requests are never answered."""
    gated: set[str] = field(default_factory=set)
    """Repositories that need the token."""


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    method: str
    path: str
    host: str
    headers: dict[str, str]


class Hub:
    """Repositories, faults and the log of one server."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.large: set[bytes] = set()
        self.faults = Faults()
        self.log: list[Request] = []
        self.closing = threading.Event()
        self.stalled = threading.Event()
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, repository: str, name: str, content: bytes, *, large: bool = True) -> str:
        """Add or replace a file and return its SHA-256."""
        self.files.setdefault(repository, {})[name] = content
        if large:
            self.large.add(content)
        return hashlib.sha256(content).hexdigest()

    def commit(self, repository: str) -> str:
        """Return the commit of a repository, which is another one whenever a file changes."""
        files = sorted(
            (name, hashlib.sha1(content).hexdigest()) for name, content in self.files[repository].items()
        )
        return hashlib.sha1(repr(files).encode()).hexdigest()

    def bodies(self) -> list[Request]:
        """Return the requests for contents of large files."""
        return [
            request for request in self.log if request.method == "GET" and request.path.startswith("/lfs/")
        ]


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def connect(server: Hub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub in this process ask a server, with a cache of its own and no token.

    As HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE do, which are read when it is imported.
    """
    patch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    patch.delenv("HF_TOKEN", raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client may leave
            self._answer()

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.log.append(Request(self.command, path, self.headers["Host"], dict(self.headers)))
        if hub.faults.silent:
            self._stall()
        elif hub.faults.statuses:
            self._send(hub.faults.statuses.pop(0))
        elif path.startswith("/lfs/"):
            self._send_content(path.removeprefix("/lfs/"))
        elif match := re.fullmatch("/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._send_listing(*match.groups())
        elif match := re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._send_file(*match.groups())
        else:
            self._send(404)

    def _refused(self, repository: str, revision: str | None) -> bool:
        """Answer as the hub does where a repository or a revision cannot be had."""
        if repository not in self.hub.files:
            self._send(401, {"X-Error-Code": "RepoNotFound"})
        elif repository in self.hub.faults.gated and self.headers.get("Authorization") != TOKEN:
            self._send(401, {"X-Error-Code": "GatedRepo"})
        elif revision not in (None, "main", self.hub.commit(repository)):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def _send_listing(self, repository: str, kind: str | None, revision: str | None) -> None:
        if self._refused(repository, revision):
            return
        files = self.hub.files[repository].items()
        if kind == "tree":
            tree = [
                {"type": "file", "path": name} | self._facts(content, "oid", "oid") for name, content in files
            ]
            self._send(200, body=json.dumps(tree).encode())
            return
        siblings = [{"rfilename": name} | self._facts(content, "blobId", "sha256") for name, content in files]
        info = {"id": repository, "sha": self.hub.commit(repository), "siblings": siblings}
        self._send(200, body=json.dumps(info).encode())

    def _facts(self, content: bytes, blob: str, digest: str) -> dict[str, object]:
        facts: dict[str, object] = {"size": len(content), blob: _git_digest(content)}
        if content in self.hub.large:
            sha256 = hashlib.sha256(content).hexdigest()
            facts["lfs"] = {digest: sha256, "size": len(content), "pointerSize": 135}
        return facts

    def _send_file(self, repository: str, revision: str, name: str) -> None:
        if self._refused(repository, revision):
            return
        content = self.hub.files[repository].get(name)
        commit = {"X-Repo-Commit": self.hub.commit(repository)}
        if content is None:
            self._send(404, commit | {"X-Error-Code": "EntryNotFound"})
        elif content in self.hub.large:
            sha256 = hashlib.sha256(content).hexdigest()
            headers = commit | {
                "X-Linked-ETag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"http://localhost:{self.hub.port}/lfs/{sha256}",
            }
            self._send(302, headers)
        else:
            self._send(200, commit | {"ETag": f'"{_git_digest(content)}"'}, content)

    def _send_content(self, sha256: str) -> None:
        content = next(item for item in self.hub.large if hashlib.sha256(item).hexdigest() == sha256)
        if self.hub.faults.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers, status = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}, 200
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        self._send(status, headers, content)

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self._send_body(body)

    def _send_body(self, body: bytes) -> None:
        faults = self.hub.faults
        if faults.cut_after is not None and len(body) > faults.cut_after:
            self.wfile.write(body[: faults.cut_after])
            faults.cut_after, self.close_connection = None, True
        elif faults.stall_after is not None and len(body) > faults.stall_after:
            self.wfile.write(body[: faults.stall_after])
            self._stall()
        else:
            self.wfile.write(body)

    def _stall(self) -> None:
        self.hub.stalled.set()
        self.hub.closing.wait(60)
        self.close_connection = True


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
