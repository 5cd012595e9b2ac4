"""kill -9 at any write, flush or rename: what is visible is whole, and the resumed run ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = 5
PAIRS = 12
"""Of kills, the second one of the sweep that resumes, beside a kill at each kind of change of each file."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[str], str]]:
    """The names of the points of each kill, and what went wrong."""
    folder = tmp_path_factory.mktemp("kills")
    command = [sys.executable, "-m", "tests.reliability.killed_sweeps", str(folder), str(SEED), str(PAIRS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(points, fault) for points, fault in json.loads(done.stdout)]


def test_a_sweep_killed_at_any_change_of_its_folder_ends_with_the_same_results(
    found: list[tuple[list[str], str]],
) -> None:
    assert [(points, fault) for points, fault in found if fault] == []


@pytest.mark.parametrize(
    "kind",
    [
        "write .lock",
        "halfway .tmp-run.json",
        "replace .tmp-digests.json",
        "fsync sessions/.tmp-",
        "halfway images/512-base_g1.5/.",
        "replace sheets/.512-base.png",
        "halfway shards/512-base/.tmp-000000-000002-",
        "fsync shards/512-base/.tmp-000000-000002-",
        "rename shards/512-base/.tmp-000000-000002-",
        "fsync shards/512-base",
        "halfway .tmp-pareto.png",
        "replace .tmp-results.csv",
        "halfway .tmp-report.json",
    ],
)
def test_the_kills_were_at_points_of_every_kind(found: list[tuple[list[str], str]], kind: str) -> None:
    assert any(points[0].startswith(kind) for points, _ in found)
    assert len(found) > 100
