"""docs/reliability.md names tests that exist, in each row of its table, for each fault."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from sd2eval import events

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", PAGE)
ROWS = [line.split(" | ") for line in PAGE.split("## How it works")[0].splitlines() if line.startswith("| ")][
    1:
]
FAULTS = (
    "out of memory",
    "NaN or black",
    "kill -9",
    "disk full",
    "truncated PNG",
    "download",
    "wrong weights",
    "pickle",
    "archive",
    "COCO JSON",
    "77 tokens",
    "GPU lost",
    "two writers",
    "changed config",
    "clock",
    "batch size",
    "energy sensor",
    "Ctrl-C",
    "half-finished",
)


@cache
def collected(file: str) -> set[str]:
    """Return the names of a file's tests, those of classes with the class's name before them."""
    found = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + one.name for one in inner if isinstance(one, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert name in collected(file)


def test_each_row_has_a_fault_what_one_gets_a_test_and_a_result() -> None:
    assert len(ROWS) > 20
    for row in ROWS:
        assert len(row) == 4, row[0]
        assert "::test_" in row[2], row[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_is_missing(fault: str) -> None:
    assert sum(fault in row[0] for row in ROWS) == 1


def test_the_page_lists_every_event_that_the_package_logs() -> None:
    logged = set()
    for file in (ROOT / "sd2eval").rglob("*.py"):
        text = file.read_text()
        logged |= set(
            re.findall(
                r"(?:\.event|self\.log|self\.note)\(\s*(?:text, )?\"([a-z]+_[a-z]+|signal|warning)\"", text
            )
        )
    logged |= {"run_begun", "run_resumed", "device_lost", "warning"}
    assert len(logged) > 12
    listed = set(re.findall(r"`(\w+)`", PAGE.split("## The log")[1]))
    assert logged <= listed
    assert events.FILE in PAGE
