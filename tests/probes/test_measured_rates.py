"""Rows of rates: corrected for known errors, or without a number where these are too many."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from sd2eval.probes.measured_rates import (
    confused,
    degrees,
    difference_row,
    enough,
    mean_row,
    rate_row,
    told,
    unsure,
)
from sd2eval.probes.proportions import Confusion

EYE = SimpleNamespace(name="eye", digest="12345678" + "0" * 56)
FOUND = np.arange(100) < 40


def confusion(sensitivity: float, specificity: float) -> Confusion:
    return Confusion(
        hits=1000 * sensitivity, positives=1000, false_alarms=1000 * (1 - specificity), negatives=1000
    )


def test_a_rate_is_corrected_for_known_errors() -> None:
    row = rate_row("r", FOUND, np.arange(100), component=EYE, errors=confusion(0.8, 0.9))
    assert row.value == pytest.approx((0.4 - 0.1) / (0.8 - 0.1))
    assert row.low < row.value < row.high
    assert row.error == pytest.approx(0.15)
    assert row.component == "eye@12345678"
    assert row.note == "seen in 40.0%, corrected"


def test_an_unreliable_component_gives_no_number() -> None:
    row = rate_row("r", FOUND, np.arange(100), component=EYE, errors=confusion(0.6, 0.9), limit=0.2)
    assert math.isnan(row.value)
    assert math.isnan(row.low)
    assert row.note == "the component errs too often (25%; at most 20%)"
    assert told(row) == "no number (unreliable)"


def test_unknown_errors_are_said_to_be_unknown() -> None:
    row = rate_row("r", FOUND, np.arange(100), component=EYE, errors=None)
    assert row.value == pytest.approx(0.4)
    assert math.isnan(row.error)
    assert row.note == "not corrected: the component's errors were not measured"


def test_errors_measured_on_no_picture_are_unknown() -> None:
    nothing = confused(np.zeros(0, bool), np.zeros(0, bool))
    row = rate_row("r", FOUND, np.arange(100), component=EYE, errors=nothing)
    assert row.note == "not corrected: the component's errors were not measured"


def test_values_that_are_all_equal_have_an_interval_too() -> None:
    row = mean_row("m", np.ones(10), np.arange(10), component=EYE, error=0.0, bounds=(0.0, 1.0))
    assert (row.value, row.high) == (1.0, 1.0)
    assert 0.6 < row.low < 0.9
    assert mean_row("m", np.ones(10), np.arange(10), component=EYE, error=0.0).low == 1.0


def test_a_mean_has_students_interval_within_its_bounds() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.8])
    row = mean_row("m", values, np.arange(4), component=EYE, error=0.0, bounds=(0.0, 1.0))
    reach = 3.182446 * values.std(ddof=1) / 2
    assert row.low == 0.0
    assert row.high == pytest.approx(0.2 + reach)
    assert math.isnan(mean_row("m", values, np.arange(4), component=EYE, error=0.3, limit=0.2).value)


def test_a_difference_is_welchs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 12), rng.normal(0.5, 3, 30)
    rows = [mean_row("m", one, np.arange(len(one)), component=EYE, error=math.nan) for one in (x, y)]
    dof = degrees([row.stderr for row in rows], [len(x), len(y)])
    row = difference_row(*rows, dof=dof)
    expected = ttest_ind(x, y, equal_var=False)
    assert row.value / row.stderr == pytest.approx(expected.statistic)
    assert dof == int(expected.df)
    assert row.n == 42


def test_one_group_is_not_enough() -> None:
    assert not enough([3, 3, 3])
    assert enough([3, 4])


def test_rows_are_ranked_only_where_their_intervals_lie_apart() -> None:
    low, high = (
        rate_row("r", np.arange(100) < count, np.arange(100), component=EYE, errors=None)
        for count in (20, 60)
    )
    between = rate_row("r", np.arange(100) < 28, np.arange(100), component=EYE, errors=None)
    assert unsure(low, high) == ""
    assert unsure(low, between) == "; their intervals overlap"
    assert unsure(low, rate_row("r", FOUND, np.arange(100), component=EYE, errors=confusion(0.5, 0.5)))
