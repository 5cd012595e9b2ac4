from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sd2eval.errors import InputError
from sd2eval.weights.first_use import forget, record_file, recorded, remember

A, B = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def empty_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))


def test_what_was_used_first_is_recorded_and_holds() -> None:
    remember("mine", A, "owner/weights")
    before = record_file().read_bytes()
    remember("mine", A, "owner/weights")
    assert record_file().read_bytes() == before
    (use,) = recorded()
    assert (use.name, use.origin, use.sha256) == ("mine", "owner/weights", A)


def test_other_weights_under_the_same_name_and_origin_are_refused() -> None:
    remember("mine", A, "owner/weights")
    with pytest.raises(InputError) as caught:
        remember("mine", B, "owner/weights")
    line = str(caught.value)
    for part in (A, B, recorded()[0].date[:10], str(record_file()), "checkpoint.name", "models forget mine"):
        assert part in line
    assert [use.sha256 for use in recorded()] == [A]


def test_another_name_or_origin_is_another_record() -> None:
    remember("mine", A, "owner/weights")
    remember("mine", B, "other/weights")
    remember("yours", B, "owner/weights")
    assert len(recorded()) == 3


def test_a_forgotten_name_may_mean_other_weights() -> None:
    remember("mine", A, "owner/weights")
    remember("yours", A, "owner/weights")
    assert [use.sha256 for use in forget("mine")] == [A]
    assert forget("mine") == []
    remember("mine", B, "owner/weights")
    assert {use.name: use.sha256 for use in recorded()} == {"yours": A, "mine": B}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema_version": 1}',
        '{"schema_version": 2, "digests": []}',
        '{"schema_version": 1, "digests": [{"name": "mine"}]}',
        '{"schema_version": 1, "digests": [{"name": "mine", "origin": "o", "sha256": null, "date": "d"}]}',
    ],
)
def test_a_damaged_record_is_refused_and_kept(text: str) -> None:
    record_file().parent.mkdir()
    record_file().write_text(text)
    with pytest.raises(InputError, match=r"first_use\.json: not a readable record"):
        remember("mine", A, "owner/weights")
    assert record_file().read_text() == text


def test_a_record_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="set SD2EVAL_CACHE"):
        remember("mine", A, "owner/weights")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "first_use.lock").mkdir()
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "made"))
    with pytest.raises(InputError, match="no digest can be recorded; set SD2EVAL_CACHE"):
        remember("mine", A, "owner/weights")


def test_processes_at_once_lose_nothing() -> None:
    code = """
import sys
from sd2eval.weights.first_use import remember
for number in range(40):
    remember(f"{sys.argv[1]}-{number}", "a" * 64, "owner/weights")
"""
    children = [subprocess.Popen([sys.executable, "-c", code, str(child)]) for child in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert len(recorded()) == 120
    assert json.loads(record_file().read_text())["schema_version"] == 1
    assert not list(record_file().parent.glob(".tmp-*"))
