"""One writer per folder: who comes second is told who, since when, and what to do."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import get_args

import pytest

from sd2eval.errors import InputError
from sd2eval.lock import FILE, WHAT_TO_DO, Busy, NoLocks, Writer, format_age, held
from sd2eval.probes.drawing import store_held
from sd2eval.store import RunFolder


def _hold(path: Path, ready: Event) -> None:
    with held(path):
        ready.set()
        signal.pause()


def test_the_second_writer_is_told_host_process_age_and_what_to_do(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    record = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(record | {"since": record["since"] - 7300}))
    with pytest.raises(InputError) as refused, held(tmp_path):
        pass
    (line,) = str(refused.value).splitlines()
    assert f"host {socket.gethostname()}, process {holder.pid}, for 2 hours, since " in line
    assert "give another out=DIR" in line
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with held(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["process"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", "host here, process 7, since 2024", '{"host": "a"}'])
def test_whatever_the_holder_wrote_the_second_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    with held(tmp_path):
        (tmp_path / FILE).write_text(text)
        with (
            pytest.raises(InputError, match=re.escape(text or "who has just begun")) as refused,
            held(tmp_path),
        ):
            pass
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("writer", get_args(Writer))
def test_the_second_is_told_which_verb_is_at_work(writer: Writer, tmp_path: Path) -> None:
    begin = rf"^{tmp_path}: a {writer} is writing here \(host .*\); {re.escape(WHAT_TO_DO[writer])}$"
    with held(tmp_path, writer), pytest.raises(Busy, match=begin), held(tmp_path):
        pass
    assert ("out=DIR" in WHAT_TO_DO[writer]) == (writer in ("sweep", "probe"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (7199, "1 hour"),
        (200_000, "2 days"),
        (-5, "an unknown time (the clocks differ)"),
    ],
)
def test_an_age_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert format_age(seconds) == words


def test_a_clock_that_was_set_back_refuses_nobody_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path):
        pass
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with held(tmp_path):
        pass


def test_a_file_system_without_locks_is_not_taken_for_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the kernel's own, of an `flock` that a mount without them refuses."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    words = rf"at {tmp_path} has no file locks \(No locks available\): "
    with pytest.raises(NoLocks, match=words) as no, held(tmp_path):
        pass
    assert "use another disk" in str(no.value)


FULL = """
import resource, sys
from pathlib import Path
from sd2eval.errors import Stopped
from sd2eval.lock import held
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    with held(Path(sys.argv[1])):
        sys.exit("held")
except Stopped as stop:
    print(stop)
"""


def test_a_full_disk_is_a_stop_and_no_other_writer(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no room on the disk")


@pytest.mark.parametrize("folder", ["/proc/nope", "/dev/null/nope"])
def test_a_drawing_that_cannot_be_kept_is_one_line(folder: str) -> None:
    with pytest.raises(InputError, match=f"{folder}: cannot be written"), store_held(RunFolder(Path(folder))):
        pass
