"""On a terminal of any width a table keeps every name and number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from sd2eval import terminal

ROOT = Path(__file__).parents[1]
ROW = ("x4-upscaling-noise350", "17.4 ± 1.2", "-561 ± 876")


@pytest.mark.parametrize("width", [1, 10, 30, 60, 200])
def test_a_row_is_one_whole_line(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None)
    for title in ("a", "b", "much longer than its cells"):
        table.add_column(title)
    table.add_row(*ROW)
    terminal.show_whole(Console(width=width), terminal.keep_whole(table))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if ROW[0] in line]
    for cell in ROW:
        assert cell in line


def test_columns_says_the_width_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.console(100).width == 100
    monkeypatch.setenv("COLUMNS", "60")
    assert terminal.console(100).width == 60


def test_the_list_of_weights_has_whole_names_on_a_narrow_terminal() -> None:
    """On a real one, of 60 columns."""
    import pty
    import struct
    import termios
    from fcntl import ioctl

    main, own = pty.openpty()
    ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "sd2eval", "models", "list"]
    with subprocess.Popen(
        command,
        env=environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=own,
        stdout=own,
        stderr=own,
    ) as process:
        os.close(own)
        shown = b""
        while chunk := _read(main):
            shown += chunk
    os.close(main)
    assert process.returncode == 0
    lines = shown.decode().replace("\r", "").splitlines()
    assert "v1-5-pruned-emaonly: " in "\n".join(lines)
    assert "  sd2-community/stable-diffusion-2-inpainting" in lines
    assert "…" not in shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed
        return b""
