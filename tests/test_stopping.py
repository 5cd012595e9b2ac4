"""When a cell may stop, against closed forms and a simulated study whose truth is known."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics.paired import mean_of_images
from sd2eval.statistics import interval, standard_error
from sd2eval.stopping import FIRST_LOOK, check_targets, enough, expected_n, looks, stopping_n

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("first", [2, 3, 7, 200, FIRST_LOOK])
@pytest.mark.parametrize("most", [2, 499, 500, 501, 10_000, 25_014])
def test_looks_begin_at_the_first_grow_by_a_quarter_and_end_at_the_most(first, most):
    schedule = looks(first, most)
    assert schedule[0] == min(first, most)
    assert schedule[-1] == most
    assert all(a < b for a, b in itertools.pairwise(schedule))
    assert all(0 <= b - 1.25 * a < 1 for a, b in itertools.pairwise(schedule[:-1]))


def test_looks_are_these_on_every_machine():
    assert looks(500, 3000) == [500, 625, 782, 978, 1223, 1529, 1912, 2390, 2988, 3000]


def test_another_most_changes_only_the_last_look():
    longer = looks(FIRST_LOOK, 25_014)
    for most in range(501, 5000, 97):
        *before, _ = looks(FIRST_LOOK, most)
        assert before == longer[: len(before)]


@pytest.mark.parametrize(("first", "most"), [(1, 100), (500, 1), (0, 0)])
def test_a_look_at_less_than_two_captions_is_refused(first, most):
    with pytest.raises(InputError, match="at least 2 captions"):
        looks(first, most)


def test_every_asked_metric_must_be_at_or_below_its_target():
    targets = {"fid": 0.3, "kid": 0.001}
    assert enough({"fid": 0.3, "kid": 0.001, "other": 99.0}, targets)
    assert not enough({"fid": np.nextafter(0.3, 1), "kid": 0.0001}, targets)
    assert not enough({"fid": 0.1, "kid": 0.0011}, targets)


@pytest.mark.parametrize("stderr", [0.0, float("nan"), float("inf")])
def test_an_error_that_says_nothing_is_never_enough(stderr):
    assert not enough({"nsfw": stderr}, {"nsfw": 0.5})
    assert expected_n({"nsfw": stderr}, 500, {"nsfw": 0.5}) is None


def test_a_metric_that_was_not_measured_is_refused_by_name():
    for call in (
        lambda: enough({"kid": 1.0}, {"fid": 1.0}),
        lambda: expected_n({"kid": 1.0}, 9, {"fid": 1.0}),
    ):
        with pytest.raises(InputError, match=r"precision\.fid: .* it has kid"):
            call()


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_is_a_number_above_zero(target):
    with pytest.raises(InputError, match=r"precision\.fid="):
        check_targets({"kid": 1.0, "fid": target})


def test_at_least_one_target_is_needed_and_good_ones_pass():
    with pytest.raises(InputError, match=r"prompts\.n=auto needs at least one"):
        check_targets({})
    check_targets({"fid": 0.3})


def alternating(n: int):
    """Influences +1, -1, ...: of an even n their standard error is 1 / sqrt(n - 1), in closed form."""
    return np.where(np.arange(n) % 2, -1.0, 1.0)


@pytest.mark.parametrize("needed", [1000, 1952, 1954, 9999])
def test_it_stops_at_the_first_look_whose_error_is_small_enough(needed):
    schedule = [500, 976, 1952, 3904, 7808]
    stop = stopping_n(
        schedule,
        lambda n: {"m": standard_error(alternating(n))},
        {"m": 1 / np.sqrt(needed - 1) * (1 + 1e-12)},
    )
    assert stop == next((n for n in schedule if n >= needed), None)


def test_clusters_need_as_many_captions_more_as_they_have_copies():
    """Four equal captions of each image hold the information of one."""

    def error(n):
        return {"m": standard_error(np.repeat(alternating(n // 4), 4), np.arange(n) // 4)}

    target = {"m": 1 / np.sqrt(500 - 1) * (1 + 1e-12)}
    assert stopping_n([500, 1000, 2000, 4000], error, target) == 2000


def test_no_caption_beyond_the_look_that_is_enough_is_asked_for():
    asked = []

    def error(n):
        asked.append(n)
        return {"m": 1 / n}

    assert stopping_n([10, 20, 40], error, {"m": 0.05}) == 20
    assert asked == [10, 20]


def test_a_run_that_goes_on_stops_where_an_uninterrupted_one_does():
    """An error that is small once and large again: only the first time counts, whatever is there by now."""
    errors = {500: 3.0, 625: 0.9, 782: 2.0, 978: 0.5}
    for available in (625, 700, 782, 978):
        schedule = [n for n in looks(500, 978) if n <= available]
        assert stopping_n(schedule, lambda n: {"m": errors[n]}, {"m": 1.0}) == 625
    assert stopping_n([500], lambda n: {"m": errors[n]}, {"m": 1.0}) is None


def test_the_expected_n_is_where_errors_that_fall_as_the_root_meet_all_targets():
    spread = {"fid": 14.4, "kid": 0.1}
    stderr = {name: s / np.sqrt(500) for name, s in spread.items()}
    assert expected_n(stderr, 500, {"fid": 0.3}) == pytest.approx((14.4 / 0.3) ** 2, abs=1)
    assert expected_n(stderr, 500, {"fid": 0.3, "kid": 0.001}) == pytest.approx(10_000, abs=1)
    assert expected_n(stderr, 500, {"fid": 10.0}) < 500


def stopped_coverage(first: int, draw, truth: float, spread: float, needed: int, runs: int = 1500) -> float:
    """Return how often the interval covers the truth in runs that stop by the rule from a first look on."""
    rng = np.random.default_rng(7)
    schedule = looks(first, 2000)
    targets, covered = {"m": spread / np.sqrt(needed)}, 0
    for _ in range(runs):
        x = draw(rng, schedule[-1])
        estimates = {n: mean_of_images(x[:n]) for n in schedule}
        stderr = {n: {"m": standard_error(estimate.influence)} for n, estimate in estimates.items()}
        n = stopping_n(schedule, stderr.__getitem__, targets) or schedule[-1]
        low, high = interval(estimates[n].value, stderr[n]["m"])
        covered += low <= truth <= high
    return covered / runs


def lognormal(rng, n):
    return np.exp(rng.normal(size=n))


def seldom(rng, n):
    return (rng.random(n) < 0.1).astype(float)


LOGNORMAL = (lognormal, float(np.exp(0.5)), float(np.sqrt((np.e - 1) * np.e)))
SELDOM = (seldom, 0.1, 0.3)


@pytest.mark.parametrize("population", [LOGNORMAL, SELDOM], ids=["log-normal", "10% yes"])
@pytest.mark.parametrize("needed", [250, 700])
def test_intervals_of_stopped_cells_cover_in_92_to_98_percent(population, needed):
    assert 0.92 <= stopped_coverage(FIRST_LOOK, *population, needed) <= 0.98


def test_without_the_late_first_look_they_cover_less():
    """What the rule is for: else this would pass with any rule."""
    assert stopped_coverage(20, *LOGNORMAL, 250) < 0.90


def test_events_that_have_not_happened_yet_stop_nothing():
    """Of 1 in 1,000, six in ten runs have none among 500: an error of 0, an interval without width."""

    def never_yet(rng, n):
        return np.r_[np.zeros(FIRST_LOOK), rng.random(n - FIRST_LOOK) < 0.01]

    x = never_yet(np.random.default_rng(1), 2000)
    stop = stopping_n(
        looks(FIRST_LOOK, 2000), lambda n: {"m": standard_error(mean_of_images(x[:n]).influence)}, {"m": 0.01}
    )
    assert stop == 625


def test_the_study_runs(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "stopping.py"), "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(
        command, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    lines = printed.stdout.splitlines()
    assert sum(line.startswith("| mean,") for line in lines) == 25
    assert sum(line.startswith(("| frechet_distance |", "| kernel_distance |")) for line in lines) == 14
