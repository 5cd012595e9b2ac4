"""Precision, recall, density and coverage against their definitions written out, and others' programs."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sd2eval.errors import InputError
from sd2eval.metrics import _distances, _pairs, neighbours
from sd2eval.metrics.neighbours import coverage, density, neighbour_reference, precision, recall
from sd2eval.statistics import Estimate, standard_error

Array = NDArray[np.float64]
METRICS = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}


def naive(x: Array, y: Array, k: int) -> dict[str, float]:
    """The definitions, distance by distance; k-th neighbours by sorting all distances, self first."""

    def distances(a: Array, b: Array) -> Array:
        return np.array([[np.square(p - q).sum() for q in b] for p in a])

    rim_y = np.sort(distances(y, y), axis=1)[:, k]
    rim_x = np.sort(distances(x, x), axis=1)[:, k]
    between = distances(y, x)
    return {
        "precision": (between <= rim_y[:, None]).any(axis=0).mean(),
        "recall": (between <= rim_x).any(axis=1).mean(),
        "density": (between < rim_y[:, None]).sum(axis=0).mean() / k,
        "coverage": (between < rim_y[:, None]).any(axis=1).mean(),
    }


def clouds(rng: np.random.Generator, n: int = 40, m: int = 50, d: int = 4) -> tuple[Array, Array]:
    return 0.8 * rng.normal(size=(n, d)) + 0.4, rng.normal(size=(m, d))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_value_is_the_definition_whatever_the_block(rng, monkeypatch, name, block, k):
    monkeypatch.setattr(_pairs, "BLOCK", block)
    monkeypatch.setattr(_distances, "_NUMBERS_AT_ONCE", 4 * block)
    x, y = clouds(rng)
    found = METRICS[name](x, neighbour_reference(y, k))
    assert found.value == pytest.approx(naive(x, y, k)[name], rel=1e-14)


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 4), size=st.integers(1, 3))
def test_ties_count_as_defined(name, seed, k, size):
    """On a grid nearly every distance is a tie, many rows are equal, and all is far from the origin."""
    rng = np.random.default_rng(seed)
    x = 1e6 + rng.integers(0, size + 1, (12, 3)).astype(float)
    y = 1e6 + rng.integers(0, size + 1, (15, 3)).astype(float)
    x[0], y[0] = 1e6, 1e6 + size  # never all equal
    x[1], y[1] = 1e6 + size, 1e6
    found = METRICS[name](x, neighbour_reference(y, k))
    assert found.value == pytest.approx(naive(x, y, k)[name], rel=1e-14)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("n", "d", "grid"), [(25, 2, False), (25, 5, False), (20, 2, True)])
def test_influence_is_the_jackknife(rng, name, n, d, grid):
    x, y = clouds(rng, n, 60, d)
    x = 2 * x  # some samples must lie outside
    if grid:
        x, y = np.round(1.5 * x), np.round(1.5 * y)
    reference = neighbour_reference(y, 3)
    without = np.array([METRICS[name](np.delete(x, i, axis=0), reference).value for i in range(n)])
    expected = (n - 1) * (without.mean() - without)
    np.testing.assert_allclose(METRICS[name](x, reference).influence, expected, atol=1e-12)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize("name", METRICS)
def test_identical_sets_agree_perfectly(rng, name):
    x = rng.normal(size=(60, 20))
    assert METRICS[name](x, neighbour_reference(x, 3)).value == pytest.approx(1, rel=1e-14)
    assert METRICS[name](x[::-1] + 5.0, neighbour_reference(x + 5.0, 5)).value == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("name", METRICS)
def test_sets_far_apart_do_not_meet(rng, name):
    x, y = clouds(rng)
    far = METRICS[name](x + 100, neighbour_reference(y, 3))
    assert far.value == 0
    assert standard_error(far.influence) == 0


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 2**32 - 1))
def test_blind_to_order_rotation_shift_and_scale(name, seed):
    rng = np.random.default_rng(seed)
    x, y = clouds(rng, 30, 25)
    plain = METRICS[name](x, neighbour_reference(y, 3))
    order, turn = rng.permutation(30), np.linalg.qr(rng.normal(size=(4, 4)))[0]
    moved = METRICS[name](7 * x[order] @ turn + 3, neighbour_reference(7 * y[::-1] @ turn + 3, 3))
    assert moved.value == pytest.approx(plain.value)
    np.testing.assert_allclose(moved.influence, plain.influence[order], atol=1e-12)
    assert plain.value >= 0
    assert name == "density" or plain.value <= 1


def test_precision_of_one_set_is_the_recall_of_the_other(rng):
    x, y = clouds(rng)
    assert precision(x, neighbour_reference(y, 3)).value == recall(y, neighbour_reference(x, 3)).value


def test_narrow_samples_are_precise_and_wide_ones_cover(rng):
    y = rng.normal(size=(300, 3))
    narrow, wide = 0.2 * rng.normal(size=(300, 3)), 3 * rng.normal(size=(300, 3))
    reference = neighbour_reference(y, 3)
    assert precision(narrow, reference).value > 0.98 > 0.7 > precision(wide, reference).value
    assert recall(narrow, reference).value < 0.4 < 0.9 < recall(wide, reference).value
    assert coverage(narrow, reference).value < 0.4
    assert density(wide, reference).value < 0.3 < 0.8 < density(narrow, reference).value


@pytest.mark.parametrize("part", [False, True], ids=["full", "part"])
def test_agrees_with_torch_fidelity(rng, part):
    torch = pytest.importorskip("torch")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    x, y = clouds(rng, 300, 400, 32)
    theirs = prc.prc_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        prc_neighborhood=3,
        prc_batch_size=64,
        save_cpu_ram=part,
        verbose=False,
    )
    reference = neighbour_reference(y, 3)
    assert 0.05 < theirs["recall"] < theirs["precision"] < 1
    assert precision(x, reference).value == pytest.approx(theirs["precision"], abs=1e-7)  # theirs is float32
    assert recall(x, reference).value == pytest.approx(theirs["recall"], abs=1e-7)


@pytest.mark.parametrize("name", ["recall", "coverage"])
@pytest.mark.parametrize("n", [100, 400])
def test_standard_error_is_the_spread_over_data_sets(name, n):
    rng = np.random.default_rng(n)
    reference = neighbour_reference(rng.normal(size=(200, 6)), 5)
    estimates: list[Estimate] = [
        METRICS[name](0.8 * rng.normal(size=(n, 6)) + 0.3, reference) for _ in range(300)
    ]
    spread = np.std([e.value for e in estimates], ddof=1)
    claimed = np.sqrt(np.mean([standard_error(e.influence) ** 2 for e in estimates]))
    assert 0.9 * spread < claimed < 1.8 * spread  # on the safe side; see docs/uncertainty.md


def test_too_few_neighbours_are_named(rng):
    x, y = clouds(rng)
    with pytest.raises(
        InputError, match="reference features: 5 nearest neighbours need at least 6 rows, got 5"
    ):
        neighbour_reference(y[:5], 5)
    with pytest.raises(InputError, match="features: 4 nearest neighbours need at least 5 rows, got 4"):
        recall(x[:4], neighbour_reference(y, 3))
    with pytest.raises(InputError, match="at least 1, got 0"):
        neighbour_reference(y, 0)


def test_memory_is_a_few_blocks_of_rows(rng):
    """Distances of 6,000 x 6,000 samples would be 288 MB, and a boolean each 36."""
    x, y = rng.normal(size=(6000, 8)), rng.normal(size=(6000, 8))
    start = time.process_time()
    tracemalloc.start()
    reference = neighbour_reference(y, 3)
    recall(x, reference)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 230e6
    assert time.process_time() - start < 30


def test_defaults_are_those_of_the_papers():
    assert (neighbours.PRECISION_K, neighbours.DENSITY_K) == (3, 5)
