"""A loopback HTTP server that fails in the ways real ones do, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PIECE = 4096


@dataclass(kw_only=True)
class Served:
    """A file, and how the server is to treat those who ask for it."""

    content: bytes
    etag: str | None = None  # None: quoted digest of the content; "" sends none
    date: str = ""
    ranges: bool = True
    knows_if_range: bool = True
    says_length: bool = True
    chunked: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)  # answers of the first requests, before it is given
    cuts: list[int] = field(default_factory=list)  # bytes of its body that the first answers break off after
    pause: float = 0.0  # seconds after each piece of 4096 bytes
    silent_after: int | None = None  # bytes of a body after which nothing comes any more

    @property
    def version(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"' if self.etag is None else self.etag


@dataclass(frozen=True)
class Asked:
    path: str
    range: str | None
    if_range: str | None
    authorization: str | None


class Loopback(http.server.ThreadingHTTPServer):
    """Serves `files` by their path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.redirects: dict[str, str] = {}
        self.log: list[Asked] = []
        self.ended = threading.Event()

    def add(self, path: str, content: bytes, **how: object) -> str:
        """Serve a file and return its address."""
        self.files[path] = Served(content=content, **how)  # type: ignore[arg-type]
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what is being tested."""


@contextmanager
def serving() -> Iterator[Loopback]:
    """Run a server in threads while open."""
    server = Loopback()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Loopback

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.removeprefix("/")
        self.server.log.append(
            Asked(path, self.headers["Range"], self.headers["If-Range"], self.headers["Authorization"])
        )
        self.close_connection = True
        file = self.server.files.get(path)
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif file is None:
            self.send_error(404)
        elif file.statuses and (status := file.statuses.pop(0)) != 200:
            self.send_error(status)
        else:
            self._answer(file)

    def _answer(self, file: Served) -> None:
        size = len(file.content)
        start = self._start(file)
        if start is not None and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        body = file.content[start or 0 :]
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        named = {"ETag": file.version, "Last-Modified": file.date, **file.headers}
        if file.chunked:
            named["Transfer-Encoding"] = "chunked"
        elif file.says_length:
            named["Content-Length"] = str(len(body))
        for name, value in named.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self._send(file, body)

    def _start(self, file: Served) -> int | None:
        asked, condition = self.headers["Range"], self.headers["If-Range"]
        if asked is None or not file.ranges:
            return None
        if condition and file.knows_if_range and condition not in (file.version, file.date):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _send(self, file: Served, body: bytes) -> None:
        end = min(len(body), file.cuts.pop(0)) if file.cuts else len(body)
        stop = end if file.silent_after is None else min(end, file.silent_after)
        for begin in range(0, stop, PIECE):
            piece = body[begin : min(begin + PIECE, stop)]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if file.chunked else piece)
            self.wfile.flush()
            time.sleep(file.pause)
        if stop < end:
            self.server.ended.wait(30)
        elif file.chunked and end == len(body):
            self.wfile.write(b"0\r\n\r\n")
