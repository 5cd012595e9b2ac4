from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from sd2eval.progress import Progress, Rate, format_co2, format_energy, format_number, format_seconds

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rate_is_recent_and_counts_only_what_is_new() -> None:
    rate = Rate(0.0, 5000)
    assert rate.at(10.0) == 0
    done, now = 5000, 0.0
    for step in [1.0] * 40 + [4.0] * 40:  # first 8 images per second, then 2
        now, done = now + step, done + 8
        rate.add(now, done)
        if now == 40.0:
            assert rate.at(now) == pytest.approx(8.0)
    assert rate.at(now) == pytest.approx(2.0)


def test_rate_with_rare_updates_uses_the_last_eight() -> None:
    rate = Rate(0.0, 0)
    for update in range(1, 21):
        rate.add(update * 100.0, update * 50)
    assert rate.at(2000.0) == pytest.approx(0.5)


def test_rate_falls_in_a_pause_but_not_before_the_next_update_is_due() -> None:
    rate = Rate(0.0, 0)
    rate.add(10.0, 100)
    assert rate.at(10.0) == rate.at(19.9) == pytest.approx(10.0)
    assert rate.at(100.0) == pytest.approx(2.0)


def test_loading_before_the_first_image_does_not_count() -> None:
    rate = Rate(0.0, 0)
    rate.restart(50.0)
    rate.add(60.0, 100)
    rate.restart(65.0)  # too late: there is an update now
    assert rate.at(60.0) == pytest.approx(10.0)


def test_plain_lines_at_the_start_now_and_then_and_at_the_end(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(1000, done_images=400, stream=out, clock=clock) as progress:
        progress.checkpoint("768-v", captions=64, done=10)
        for _ in range(60):
            clock.now += 1
            progress.advance(8, captions=1 if clock.now % 2 else 0)
            progress.energy(0.002, 0.0007, "estimated")
    lines = out.getvalue().splitlines()
    assert lines[0] == "1000 images to make, 400 already done"
    assert len(lines) == 6, "60 seconds, one line in 15"
    assert (
        lines[1]
        == "520/1000 images  52%  8/s  ETA 1 min 00 s  768-v  18/64 captions  2 Wh, 0.7 g CO2 (estimated)"
    )
    assert lines[-1] == "done: 880/1000 images (480 in 1 min 00 s, 8/s), 2 Wh, 0.7 g CO2 (estimated)"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_end_says_stopped_and_the_error_passes(clock: Clock, error: type[BaseException]) -> None:
    out = io.StringIO()

    def body() -> None:
        with Progress(10, stream=out, clock=clock) as progress:
            clock.now += 2
            progress.advance(4)
            raise error

    with pytest.raises(error):
        body()
    assert out.getvalue().splitlines()[-1] == "stopped: 4/10 images (4 in 2 s, 2/s)"


def test_quiet_prints_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    with Progress(10, quiet=True, stream=out, clock=clock) as progress:
        progress.checkpoint("512-base", 2)
        progress.print("a message")
        clock.now += 100
        progress.advance(10, captions=2)
    assert out.getvalue() == ""
    assert capfd.readouterr() == ("", "")


def test_messages_and_nothing_to_do(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(0, stream=out, clock=clock) as progress:
        progress.status("loading")
        progress.print("caption 38: [cut] at 77 tokens " + "x" * 200)
        clock.now += 20
        progress.advance(0)
    lines = out.getvalue().splitlines()
    assert lines[1] == "caption 38: [cut] at 77 tokens " + "x" * 200, "neither wrapped nor read as markup"
    assert lines[2] == "0/0 images  0%  0/s  ETA ?  loading"
    assert lines[3] == "done: 0/0 images (0 in 20 s)"


def test_a_closed_stream_does_not_stop_a_run(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(10, stream=out, clock=clock) as progress:
        out.close()
        clock.now += 20
        progress.advance(5)


SCRIPT = """
import sys, time
from sd2eval.progress import Progress
with Progress(100, done_images=20) as progress:
    progress.checkpoint("512-inpainting", captions=32)
    for step in range(8):
        time.sleep(0.15)
        progress.advance(10, captions=4)
        progress.energy(0.0012, 0.00045, "estimated")
    print("to stdout")
{end}
"""


def on_a_terminal(code: str, columns: int) -> tuple[int, str, str]:
    """Run code with stderr on a pseudo-terminal; return exit code, stdout and what the terminal received."""
    parent, child = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=child, stdout=subprocess.PIPE, env=environment, text=True
    )
    os.close(child)
    received = b""
    while select.select([parent], [], [], 30)[0]:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not chunk:
            break
        received += chunk
    os.close(parent)
    stdout, _ = process.communicate(timeout=30)
    return process.returncode, stdout, received.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_live_display_on_a_terminal(columns: int) -> None:
    code, stdout, screen = on_a_terminal(SCRIPT.format(end=""), columns)
    assert code == 0
    assert stdout == "to stdout\n", "results in a pipe stay there"
    for text in ("512-inpainting", "/32 captions", "100 images", "ETA", "1.2 Wh, 0.45 g CO2 (estimated)"):
        assert text in screen
    assert "━" in screen
    assert "done: 100/100 images (80 in" in screen
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1, "the cursor comes back"


def test_live_display_ends_cleanly_on_an_error() -> None:
    code, _, screen = on_a_terminal(SCRIPT.format(end="    raise KeyboardInterrupt"), 80)
    assert code == -2 or code == 130
    assert "stopped: 100/100 images" in screen
    assert screen.index("stopped:") < screen.index("Traceback")
    assert screen.count("\x1b[?25h") == 1


def test_a_reader_that_goes_away_does_not_end_the_program() -> None:
    """Rich would raise SystemExit(1) here and point stdout at /dev/null."""
    code = "import time\n" + SCRIPT.format(end="").replace("with", "time.sleep(0.3)\nwith", 1)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    assert process.stdout is not None
    process.stderr.close()
    assert process.stdout.read() == b"to stdout\n"
    process.stdout.close()
    assert process.wait(30) == 0


DURATIONS = {
    0: "0 s",
    59.4: "59 s",
    59.6: "1 min 00 s",
    245: "4 min 05 s",
    3600: "1 h 00 min",
    11_245: "3 h 07 min",
    86_399.9: "1 d 00 h",
    190_000: "2 d 04 h",
}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_format_units() -> None:
    assert [format_energy(kwh) for kwh in (0.0, 2.5e-6, 0.0999, 0.1, 1234.5)] == [
        *("0 Wh", "0.0025 Wh", "99.9 Wh", "0.1 kWh"),
        "1234 kWh",
    ]
    assert [format_co2(kg) for kg in (0.0, 0.00045, 0.999, 1.0, 15_000.0)] == [
        *("0 g CO2", "0.45 g CO2", "999 g CO2", "1 kg CO2"),
        "15000 kg CO2",
    ]
    assert [format_number(v) for v in (99.97, 999.7, 12_345.6, 0.00012, 0.0)] == [
        "100",
        "1000",
        "12346",
        "0.00012",
        "0",
    ]
    assert format_number(1.234e-9) == "0.00000000123"
