"""The slope of shown over known shares, against another program and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress

from sd2eval.errors import InputError
from sd2eval.probes.shares import ClassErrors, corrected_values
from sd2eval.probes.slopes import mean_above, slope, slope_of_shares
from sd2eval.statistics import interval


def test_value_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(40)
    y = 0.2 + 1.7 * x + rng.normal(size=40)
    assert slope(x, y).value == pytest.approx(linregress(x, y).slope)


def test_interval_covers_where_spreads_differ() -> None:
    rng = np.random.default_rng(1)
    x = np.linspace(0.05, 0.95, 50)
    held = 0
    for _ in range(1000):
        found = slope(x, rng.binomial(15, x) / 15 + rng.normal(size=50) * 0.4 * (x > 0.8))
        low, high = interval(*found, dof=48)
        held += low <= 1 <= high
    assert 0.93 <= held / 1000 <= 0.975


def test_a_point_without_a_slope_is_refused() -> None:
    with pytest.raises(InputError, match="at least 3 points"):
        slope([0.5, 0.5, 0.5], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="at least 3 points"):
        slope([0.1, 0.5], [0.1, 0.2])


def test_a_common_error_of_the_correction_is_counted() -> None:
    """Errors of 10% known from 15 images each move all shares together, whatever the number of subjects."""
    rng = np.random.default_rng(2)
    m = np.array([[0.9, 0.1], [0.1, 0.9]])
    x = np.linspace(0.05, 0.95, 60)
    held = alone = 0
    for _ in range(400):
        counts = np.column_stack([[rng.multinomial(15, row) for row in m], np.zeros(2)])
        errors = ClassErrors(("a", "b"), counts)
        if errors.error > 0.35:
            continue
        seen = [(rng.random(40) >= p * 0.9 + (1 - p) * 0.1).astype(int) for p in x]
        shown = [corrected_values(one, errors) for one in seen]
        found = slope_of_shares(x, shown, 0, errors)
        low, high = interval(found.value, found.stderr, dof=found.dof)
        held += low <= 1 <= high
        alone += abs(found.value - 1) <= 2 * slope(x, [one[0] for one in shown]).stderr
    assert alone / 400 < 0.6
    assert held / 400 > 0.88


def test_each_subject_counts_alike_however_many_of_its_portraits_are_decided() -> None:
    """Portraits that mirror the statistics; 12 of 20 are undecided where the shares are high."""
    errors = ClassErrors(("woman", "man"), np.array([[200.0, 0, 0], [0, 200.0, 0]]))
    known, decided = [0.1, 0.1, 0.5, 0.9, 0.9], [20, 20, 20, 8, 8]
    rng, values, held = np.random.default_rng(3), [], 0
    for _ in range(2000):
        answers = [(rng.random(n) >= p).astype(int) for p, n in zip(known, decided, strict=True)]
        found = mean_above(known, answers, 0, errors)
        low, high = interval(found.value, found.stderr, dof=found.dof)
        values.append(found.value)
        held += low <= 0 <= high
    assert np.mean(values) == pytest.approx(0, abs=0.01)
    assert np.std(values) == pytest.approx(
        0.043, abs=0.003
    )  # sqrt of the mean of p (1 - p) / n, over sqrt(5)
    assert 0.93 <= held / 2000 <= 0.98
