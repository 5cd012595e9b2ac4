"""The benchmark of how cost grows runs, and its model finds the costs that rows were made with."""

from __future__ import annotations

import re

import pytest

from benchmarks import engines

SECONDS = ((5.0, 3.0, 0.1), (7.0, 6.0, 0.12))


def test_the_model_finds_the_costs_that_rows_were_made_with() -> None:
    made = engines.Model(*SECONDS)
    rows = [made.row(16 * times, workers, 2) for workers in (1, 2, 4) for times in (1, 2, 4, 8)]
    found = engines.fitted(rows)
    assert found.wall == pytest.approx(SECONDS[0])
    assert found.cpu == pytest.approx(SECONDS[1])


def test_one_worker_starts_nothing_and_uses_all_cores_and_more_workers_share_them() -> None:
    made = engines.Model(*SECONDS)
    assert (made.row(10, 1, 2).wall, made.row(10, 1, 2).cpu) == pytest.approx((5 + 2, 7 + 4.8))
    assert (made.row(10, 4, 2).wall, made.row(10, 4, 2).cpu) == pytest.approx((5 + 6 + 2, 7 + 24 + 4.8))
    assert made.row(10, 4, 4).wall == pytest.approx(5 + 3 + 1)


def test_the_smallest_measurement_is_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    words = "sampler.steps=1 protocol.metrics=[clip_mini] "
    words += "--once --captions 2 --workers 1 --times 1 --beyond-workers 4 --beyond-times 8"
    engines.main(words.split())
    out, progress = capfd.readouterr()
    assert len(progress.splitlines()) == 1
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[2:]]
    assert [row[:3] for row in rows] == [["2", "8", "1"], ["16", "64", "4"]]
    assert all(float(cell) > 0 for cell in rows[0])
    assert [cell for cell in rows[1] if cell == "-"] == ["-", "-"]
    assert re.search(r"Wall: [\d.]+ s once, [\d.]+ s per worker, [\d.]+ s per image; off by \d+%", out)
