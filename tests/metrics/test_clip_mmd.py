"""CMMD against its double sums, and against torch-fidelity's Gaussian kernel."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics import _pairs
from sd2eval.metrics.clip_mmd import clip_mmd, clip_reference
from sd2eval.statistics import standard_error


def kernels(x, y):
    """exp(-|a - b|^2 / 200) of normalised rows, distance by distance."""
    x = x / np.sqrt(np.square(x).sum(axis=1))[:, None]
    y = y / np.sqrt(np.square(y).sum(axis=1))[:, None]
    return np.exp(-np.array([[np.square(a - b).sum() for b in y] for a in x]) / 200)


def sets(rng, n=30, m=40, d=8):
    return rng.normal(size=(n, d)) + 0.6, rng.normal(size=(m, d))


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_both_estimators_are_their_double_sums(rng, monkeypatch, block):
    monkeypatch.setattr(_pairs, "BLOCK", block)
    x, y = sets(rng)
    xx, yy, xy = kernels(x, x), kernels(y, y), kernels(x, y)
    reference = clip_reference(y)
    biased = xx.mean() + yy.mean() - 2 * xy.mean()
    off = [k[~np.eye(len(k), dtype=bool)].mean() for k in (xx, yy)]
    assert clip_mmd(x, reference).value == pytest.approx(biased, rel=1e-10)
    assert clip_mmd(x, reference, "unbiased").value == pytest.approx(sum(off) - 2 * xy.mean(), rel=1e-10)
    assert clip_mmd(x, reference).value > clip_mmd(x, reference, "unbiased").value


def test_unbiased_agrees_with_torch_fidelity(rng):
    """Its `rbf` kernel distance, features normalised by hand."""
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = sets(rng, 50, 50)
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y)]
    theirs = kid.kernel_mmd(*unit, kid_kernel="rbf", kid_kernel_rbf_sigma=10.0)
    assert clip_mmd(x, clip_reference(y), "unbiased").value == pytest.approx(float(theirs), rel=1e-9)


def test_identical_sets_are_at_zero(rng):
    x = rng.normal(size=(50, 6))
    assert clip_mmd(x, clip_reference(x)).value == pytest.approx(0, abs=1e-14)


def test_closed_form_for_two_opposite_bundles(rng):
    """All samples along +e, all of the reference along -e, but for lengths: 2 - 2 exp(-4 / 200)."""
    e = np.array([1.0, 0, 0])
    x, y = rng.uniform(1, 5, (4, 1)) * e, rng.uniform(1, 5, (6, 1)) * -e
    assert clip_mmd(x, clip_reference(y)).value == pytest.approx(2 - 2 * np.exp(-0.02), rel=1e-12)


def test_blind_to_order_length_and_rotation(rng):
    x, y = sets(rng)
    order, turn = rng.permutation(30), np.linalg.qr(rng.normal(size=(8, 8)))[0]
    plain = clip_mmd(x, clip_reference(y))
    moved = clip_mmd(rng.uniform(0.1, 9, (30, 1)) * x[order] @ turn, clip_reference(5 * y[::-1] @ turn))
    assert moved.value == pytest.approx(plain.value, rel=1e-9)
    lengths = rng.uniform(0.1, 9, (30, 1))
    again = clip_mmd(lengths * x, clip_reference(y))
    np.testing.assert_allclose(again.influence, plain.influence, atol=1e-12)
    assert clip_mmd(y, clip_reference(x)).value == pytest.approx(plain.value, rel=1e-10)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_influence_is_the_jackknife(rng, estimator):
    x, y = sets(rng, 150)
    reference = clip_reference(y)
    without = np.array([clip_mmd(np.delete(x, i, axis=0), reference, estimator).value for i in range(len(x))])
    expected = (len(x) - 1) * (without.mean() - without)
    found = clip_mmd(x, reference, estimator).influence
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_standard_error_is_the_spread_over_data_sets(rng):
    reference = clip_reference(rng.normal(size=(300, 12)))
    estimates = [clip_mmd(rng.normal(size=(200, 12)) + 0.3, reference) for _ in range(300)]
    spread = np.std([e.value for e in estimates], ddof=1)
    claimed = np.sqrt(np.mean([standard_error(e.influence) ** 2 for e in estimates]))
    assert claimed == pytest.approx(spread, rel=0.15)


def test_another_estimator_is_refused(rng):
    with pytest.raises(InputError, match="'biased' or 'unbiased', got 'median'"):
        clip_mmd(rng.normal(size=(5, 3)), clip_reference(rng.normal(size=(5, 3))), "median")


def test_an_embedding_without_direction_is_named(rng):
    x, y = sets(rng)
    x[4] = 0
    with pytest.raises(InputError, match="embeddings: row 4 is zero and has no direction"):
        clip_mmd(x, clip_reference(y))
    with pytest.raises(InputError, match="reference embeddings: row 4 is zero"):
        clip_reference(x)
