"""Processes that have imported all that a sweep imports, so that a command costs no 6 seconds of that.

One process imports and forks a child per command; the child runs the verb as `python -m sd2eval` does, in a
session of its own. Workers are started by the engine that is tested, and by nobody else.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

IMPORTS = ("sd2eval.runners.sweep", "sd2eval.sweep", "sd2eval.plots", "sd2eval.networks")
POLL_SECONDS = 0.02


class Born:
    """A command that was forked, with the part of `subprocess.Popen` that tests need."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery

    @property
    def returncode(self) -> int:
        """Its exit code, or minus the signal that ended it; once it has ended."""
        return self._nursery.codes[self.pid]

    def poll(self) -> int | None:
        """Return the exit code, or None while it lives."""
        return self._nursery.codes.get(self.pid)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, f"{self.pid} does not end"
            time.sleep(POLL_SECONDS)
        return self.returncode

    def kill(self) -> None:
        """Kill it, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The process that forks, and what has become of its children."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self._pids: list[int] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._end)

    def bear(self, words: list[str], cwd: Path, environment: dict[str, str], log: Path) -> Born:
        """Start a command."""
        told = {"words": words, "cwd": str(cwd), "environment": environment, "log": str(log)}
        assert self._process.stdin
        with self._news:
            known = len(self._pids)
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()
            assert self._news.wait_for(lambda: len(self._pids) > known, timeout=120)
            return Born(self, self._pids[-1])

    def _end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            pid, *code = map(int, line.split())
            with self._news:
                if code:
                    self.codes[pid] = code[0]
                else:
                    self._pids.append(pid)
                self._news.notify_all()


@cache
def nursery() -> Nursery:
    """Return the one of this session."""
    return Nursery()


def serve() -> None:
    """Fork a child per line of stdin, and tell of births and ends, until stdin is closed."""
    for name in IMPORTS:
        __import__(name)
    assert threading.active_count() == 1
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if ready:
            read = os.read(0, 1 << 16)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                told = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    live(told)
                os.write(1, b"%d\n" % pid)
        reap()


def reap() -> None:
    """Tell of the children that have ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        os.write(1, b"%d %d\n" % (pid, os.waitstatus_to_exitcode(status)))


def live(told: dict[str, Any]) -> NoReturn:
    """Be the command."""
    code = 1
    try:
        os.setsid()
        os.chdir(told["cwd"])
        os.environ.clear()
        os.environ.update(told["environment"])
        nothing = os.open(os.devnull, os.O_RDWR)
        log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor, file in enumerate((nothing, nothing, log)):
            os.dup2(file, descriptor)
        sys.argv = ["sd2eval", *told["words"]]
        from sd2eval.__main__ import process

        code = process()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    # The interpreter's end as well, with what libraries do then.
    sys.exit(code)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, which a command does not have there
    serve()
