"""Paragraphs that keep names whole, and a file at out= that is checked before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from sd2eval.answers import check_csv, say, write_csv
from sd2eval.errors import InputError

FRAME = pd.DataFrame({"name": ["a"], "value": [1.5]})
BEGINNING = "name,value"


@pytest.mark.parametrize("width", [1, 20, 40, 80])
def test_a_paragraph_is_broken_at_spaces_only(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"A: /a/folder/{'x' * 60} and 512-inpainting at [1.5], 0.123 ± 0.045"
    say(Console(width=width), text)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines) == text
    assert all(len(line) <= width or " " not in line for line in lines)


def test_a_place_to_write_is_checked_and_nothing_is_left_there(tmp_path: Path) -> None:
    file = check_csv(tmp_path / "new" / "table.csv", BEGINNING)
    assert list(tmp_path.iterdir()) == []
    write_csv(FRAME, file)
    assert check_csv(file, BEGINNING) == file  # its own table is written again
    pd.testing.assert_frame_equal(pd.read_csv(file), FRAME)


def test_a_file_error_names_what_was_typed_and_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "table.csv"
    for attempt in (lambda: check_csv(path, BEGINNING), lambda: write_csv(FRAME, path)):
        with pytest.raises(InputError) as error:
            attempt()
        assert str(error.value).startswith(f"out={path}: cannot be written (")
        assert ".tmp" not in str(error.value)


def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written \(File name too long\)"):
        check_csv(tmp_path / f"{'x' * 300}.csv", BEGINNING)
