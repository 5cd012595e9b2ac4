"""A whole process: trouble with its stdout, and a signal at any moment, is at most one line and a code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "sd2eval"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


class Ended(NamedTuple):
    code: int
    err: str


def through_shell(script: str, *words: str, cwd: Path) -> Ended:
    """Run the command as `"$@"` of a shell script."""
    command = ["sh", "-c", script, "sh", *COMMAND, *words]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("words", "code"),
    [("models list json=true", 0), ("sweep --help", 0), ("models verify unknown.ckpt progress=false", 1)],
)
def test_a_reader_that_went_away_changes_nothing(words: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "unknown.ckpt").write_bytes(b"nobody knows this")
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, *words.split()]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("words", ["models list", "sweep --help", "--version"])
@pytest.mark.parametrize(
    ("script", "reason"),
    [('exec "$@" >/dev/full', "No space left on device"), ('exec "$@" >&-', "it is closed")],
)
def test_an_answer_that_cannot_be_written_is_one_line_and_2(
    words: str, script: str, reason: str, tmp_path: Path
) -> None:
    ended = through_shell(script, *words.split(), cwd=tmp_path)
    assert ended == (2, f"sd2eval: stdout cannot be written ({reason}); files are not affected\n")


def test_a_mistake_keeps_its_code_without_any_stream(tmp_path: Path) -> None:
    assert through_shell('exec "$@" >&- 2>&-', "modls", cwd=tmp_path) == (2, "")
    assert through_shell('exec "$@" 2>/dev/full', "modls", cwd=tmp_path) == (2, "")


def test_a_closed_stdout_is_not_the_next_file_that_is_opened(tmp_path: Path) -> None:
    code = """
        import sys
        from sd2eval.streams import guard
        stdout = guard()
        with open("precious", "w") as file:
            assert file.fileno() > 2
            print("output", flush=True)
        sys.exit(3 if stdout.lost else 0)
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    script = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", lines]
    assert subprocess.run(script, cwd=tmp_path, env=ENVIRONMENT, check=False).returncode == 3
    assert (tmp_path / "precious").read_text() == ""


def test_a_character_that_the_terminal_lacks_ends_nothing(tmp_path: Path) -> None:
    code = "from sd2eval.streams import guard; guard(); print('1 \\u00b1 2')"
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout == b"1 \\xb1 2\n"


# What to run, and the import after which the signal is sent.
MOMENTS = {
    "sweep experiment=smoke": ("omegaconf",),
    "sweep dry_run=true": ("hydra.types", "torch.nn.functional"),
    "selfcheck": ("numpy",),
    "models list": ("sd2eval.weights.inventory",),
    "data verify": ("sd2eval.transfer.download", "sd2eval.images"),
    "report nowhere": ("pandas", "matplotlib"),
}


@pytest.mark.parametrize(
    ("words", "module"), [(words, module) for words, modules in MOMENTS.items() for module in modules]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_is_one_line_and_75(
    words: str, module: str, number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sd2eval", *words.split()]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        begun = False
        for line in process.stderr:
            name = line.rpartition("|")[2].strip()
            begun |= name == "sd2eval.words"  # the last import before the handlers
            if begun and name == module:
                break
        process.send_signal(number)
        rest = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert len(rest) == 1
    assert rest[0].startswith(f"sd2eval: stopped by {number.name}; ")
    assert process.returncode == 75
    assert list(tmp_path.iterdir()) == []
