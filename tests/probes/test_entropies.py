"""Entropies: closed forms, and how often intervals hold the truth at the numbers that the probes use."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.probes.entropies import bits_of, entropy

REPEATS = 2000
CATEGORIES = ("a", "b", "c", "d")


def shape(name: str, k: int) -> np.ndarray:
    weights = {
        "alike": np.ones(k),
        "geometric": 0.7 ** np.arange(k),
        "one of 60%": np.array([0.6, *[0.4 / (k - 1)] * (k - 1)]),
        "one of 95%": np.array([0.95, *[0.05 / (k - 1)] * (k - 1)]),
        "two of 30%": np.array([0.3, 0.3, *[0.4 / (k - 2)] * (k - 2)]),
        "Zipf": 1 / np.arange(1, k + 1),
    }[name]
    found: np.ndarray = weights / weights.sum()
    return found


@pytest.mark.parametrize("name", ["alike", "geometric", "one of 60%", "one of 95%", "two of 30%", "Zipf"])
@pytest.mark.parametrize(("n", "k", "bias"), [(20, 24, 0.25), (25, 12, 0.1), (100, 12, 0.03)])
def test_an_interval_of_few_pictures_holds_the_truth(name: str, n: int, k: int, bias: float) -> None:
    p, rng = shape(name, k), np.random.default_rng(1)
    truth, names = bits_of(p), [str(one) for one in range(k)]
    found = [entropy([names[one] for one in rng.choice(k, n, p=p)], names) for _ in range(REPEATS)]
    holds = np.mean([one.low - 1e-9 <= truth <= one.high + 1e-9 for one in found])
    assert holds >= 0.92
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=bias)


def test_shares_of_no_planned_shape_are_held_too() -> None:
    rng, names = np.random.default_rng(2), [str(one) for one in range(24)]
    held = 0
    for _ in range(REPEATS):
        p = rng.dirichlet(np.full(24, 0.2 if rng.random() < 0.5 else 2.0))
        found = entropy([names[one] for one in rng.choice(24, 20, p=p)], names)
        held += found.low <= bits_of(p) <= found.high
    assert held / REPEATS >= 0.92


def test_of_many_pictures_the_entropy_is_that_of_the_counts() -> None:
    found = entropy(["a"] * 6000 + ["b"] * 2000 + ["c"] * 1000 + ["d"] * 1000, CATEGORIES)
    truth = bits_of([0.6, 0.2, 0.1, 0.1])
    assert found.value == pytest.approx(truth, abs=1e-3)
    assert found.low < truth < found.high
    assert found.high - found.low < 0.1


@pytest.mark.parametrize("n", [25, 50])
def test_an_entropy_of_one_category_is_zero_and_may_be_more(n: int) -> None:
    found = entropy(["a"] * n, CATEGORIES)
    assert (found.value, found.low) == (0.0, 0.0)
    # A category of 1 - 0.025^(1/n) would be missed in one of 40 cases, if it were all of the rest.
    rest = 1 - 0.025 ** (1 / n)
    assert found.high >= bits_of([1 - rest, rest])
    assert found.high < 1.2


def test_an_entropy_never_leaves_its_range() -> None:
    found = entropy(list("abcd") * 30, CATEGORIES)
    assert found.value == pytest.approx(2.0, abs=0.001)
    assert found.high == 2.0
    assert 1.8 < found.low < 2.0
    assert found.stderr == pytest.approx((found.high - found.low) / 3.92, rel=1e-3)


def test_the_same_pictures_have_the_same_interval() -> None:
    assert entropy(list("abca"), CATEGORIES) == entropy(list("caab"), CATEGORIES)


def test_too_little_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 pictures and categories, got 1 and 4"):
        entropy(["a"], CATEGORIES)
    with pytest.raises(InputError, match="got 3 and 1"):
        entropy(["a"] * 3, ("a",))
    assert not math.isnan(entropy(["a", "b"], CATEGORIES).value)
