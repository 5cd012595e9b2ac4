"""`data fetch coco` and `data verify`: mistakes get one line, and nothing loads torch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


MISTAKES = {
    "data": ("data: do what? fetch, verify", "--help"),
    "data ftch coco": ("'ftch'", "did you mean 'fetch'"),
    "data fetch": ("usage", "data fetch coco"),
    "data fetch coc": ("'coc'", "did you mean 'coco'"),
    "data fetch coco coco": ("usage", "data fetch coco"),
    "data fetch coco rot=x": ("'rot'", "did you mean 'root'"),
    "data fetch coco root=": ("root=", "a value is needed"),
    "data fetch coco root=a root=b": ("root=b", "twice"),
    "data fetch coco keep_archives=maybe": ("keep_archives=maybe", "true or false"),
    "data fetch coco images_url=val2017.zip": ("'val2017.zip'", "http://"),
    "data verify images_url=x": ("'images_url'", "keys: root"),
    "data verify --force": ("'--force'", "--help"),
    "data verify": ("datasets/coco", "no such folder"),
    "data verify root=nowhere": ("nowhere", "no such folder"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gets_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sd2eval.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # should one of them ask after all, nobody answers
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    for part in MISTAKES[words]:
        assert part in said.err


@pytest.mark.parametrize("words", [["data", "--help"], ["data", "verify", "root=."]])
def test_the_verb_needs_no_torch(words: list[str], tmp_path: Path) -> None:
    code = f"""
        import sys
        from sd2eval.__main__ import main
        try:
            main({words})
        except SystemExit:
            pass
        print("torch" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False"
