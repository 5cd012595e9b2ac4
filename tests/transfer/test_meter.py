"""One long step says how far it is, on a terminal and in a file, and never more than it should."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sd2eval.transfer import meter
from sd2eval.transfer.meter import Meter, format_bytes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (815_585_330, "815.6 MB"),
        (1_068_492_871, "1.1 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_bytes_are_written_in_powers_of_1000(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_file_gets_one_line_where_nothing_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("checking", 5000, unit="images") as step:
        for done in range(5000):
            step.to(done + 1)
    assert capsys.readouterr().err == "checking: 5,000 images\n"


def test_a_file_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meter, "PLAIN_SECONDS", 0.0)
    with Meter("a.zip") as step:
        step.to(500)
        step.to(1000, 4000)
    assert capsys.readouterr().err == "a.zip: 500 B\na.zip: 1.0 kB of 4.0 kB (25%)\n"


def test_things_are_counted_as_things(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meter, "PLAIN_SECONDS", 0.0)
    with Meter("checking", 5000, unit="images") as step:
        step.to(1250)
    assert capsys.readouterr().err.splitlines()[-1] == "checking: 1,250 of 5,000 images (25%)"


def break_off(step: Meter, done: int = 1000) -> None:
    step.to(done, 4000)
    raise KeyboardInterrupt


def test_a_step_that_ends_early_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Meter("a.zip", 4000) as step:
        break_off(step)
    assert capsys.readouterr().err.splitlines()[-1] == "a.zip: stopped at 1.0 kB of 4.0 kB (25%)"


@pytest.mark.parametrize("done", [0, 4000])
def test_a_failure_before_the_first_or_after_the_last_byte_needs_no_line(
    done: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), Meter("a.zip") as step:
        break_off(step, done)
    assert capsys.readouterr().err == ""


def test_nothing_is_printed_when_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Meter("a.zip", 4000, show=False) as step:
        break_off(step)
    assert capsys.readouterr() == ("", "")


CHILD = """
    import time
    from sd2eval.transfer.meter import Meter
    with Meter("[a].zip") as step:
        step.to(0, 4000)
        step.say("from [here]")
        step.to(3000)
        time.sleep(0.3)
    print("end")
"""


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(CHILD)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.stdout == b"end\n"
    assert "from [here]\r\n" in shown
    assert "[a].zip" in shown
    assert "3.0/4.0 kB" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the bar's line is erased


def test_a_reader_that_goes_away_does_not_stop_the_work(tmp_path: Path) -> None:
    code = """
        import os, sys
        from sd2eval.transfer.meter import Meter
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(reader)
        with Meter("a.zip", 4000) as step:
            step.to(4000)
        print("end")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE)
    assert done.stdout == b"end\n"
