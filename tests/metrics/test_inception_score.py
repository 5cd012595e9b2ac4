"""Inception Score against closed forms and the programs that people quote it from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd2eval.errors import InputError
from sd2eval.metrics import _pairs
from sd2eval.metrics.inception_score import inception_score
from sd2eval.statistics import standard_error


def probabilities(logits):
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True)


def test_certain_and_even_is_the_number_of_classes():
    sure = np.tile(np.eye(5), (4, 1))
    assert inception_score(sure, "probabilities").value == pytest.approx(5, rel=1e-12)
    assert inception_score(1000 * sure).value == pytest.approx(5, rel=1e-12)


def test_certain_of_k_classes_in_unequal_shares_is_the_exponential_of_their_entropy():
    sure = np.eye(3)[[0, 0, 0, 1, 1, 2]]
    shares = np.array([1 / 2, 1 / 3, 1 / 6])
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert inception_score(sure, "probabilities").value == pytest.approx(expected, rel=1e-12)


def test_nearly_equal_rows_score_one(rng):
    assert inception_score(1e-6 * rng.normal(size=(20, 7))).value == pytest.approx(1, abs=1e-10)


@given(seed=st.integers(0, 2**32 - 1), width=st.floats(0.1, 30), classes=st.integers(2, 12))
def test_between_one_and_the_number_of_classes_and_blind_to_order(seed, width, classes):
    rng = np.random.default_rng(seed)
    logits = width * rng.normal(size=(25, classes))
    plain = inception_score(logits)
    assert 1 - 1e-12 <= plain.value <= classes + 1e-9
    order, columns = rng.permutation(25), rng.permutation(classes)
    shuffled = inception_score(logits[order][:, columns] + rng.normal(size=(25, 1)))
    assert shuffled.value == pytest.approx(plain.value, rel=1e-9)
    np.testing.assert_allclose(shuffled.influence, plain.influence[order], atol=1e-8)
    given_p = inception_score(probabilities(logits), "probabilities")
    assert given_p.value == pytest.approx(plain.value, rel=1e-9)


@pytest.mark.parametrize(("n", "splits"), [(200, 1), (200, 10), (203, 10), (101, 3)])
def test_agrees_with_torch_fidelity(rng, n, splits):
    torch = pytest.importorskip("torch")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 3 * rng.normal(size=(n, 30))
    theirs = isc.isc_features_to_metric(torch.from_numpy(logits), splits, shuffle=True, rng_seed=7)
    ours = inception_score(logits, splits=splits, seed=7)
    assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-12)


@pytest.mark.filterwarnings("ignore")  # theirs: a large memory footprint
def test_agrees_with_torchmetrics(rng):
    """One split, so its random order does not matter."""
    torch = pytest.importorskip("torch")
    inception = pytest.importorskip("torchmetrics.image.inception")
    logits = 3 * rng.normal(size=(100, 20))
    metric = inception.InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.update(torch.from_numpy(logits))
    theirs = float(metric.compute()[0])
    assert inception_score(logits).value == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("block", [4, 1024])
def test_influence_is_the_jackknife(rng, monkeypatch, splits, block):
    """In its own split, of which the value is one part in `splits`."""
    monkeypatch.setattr(_pairs, "BLOCK", block)
    n = 30
    logits = 3 * rng.normal(size=(n, 6))
    found = inception_score(logits, splits=splits, seed=1).influence
    order = np.arange(n) if splits == 1 else np.random.RandomState(1).permutation(n)
    size = n // splits
    for part in order.reshape(splits, size):
        without = np.array([inception_score(logits[part[part != i]]).value for i in part])
        expected = (size - 1) * (without.mean() - without)  # n / size pieces, each 1 / splits of the value
        np.testing.assert_allclose(found[part], expected, atol=1e-10)


@pytest.mark.parametrize(("n", "splits"), [(100, 1), (400, 1), (400, 4)])
def test_standard_error_is_the_spread_over_data_sets(n, splits):
    rng = np.random.default_rng(n)
    estimates = [inception_score(2 * rng.normal(size=(n, 10)), splits=splits) for _ in range(400)]
    spread = np.std([e.value for e in estimates], ddof=1)
    claimed = np.sqrt(np.mean([standard_error(e.influence) ** 2 for e in estimates]))
    assert 0.9 < claimed / spread < 1.2


def test_what_is_no_probability_is_named(rng):
    p = probabilities(rng.normal(size=(6, 4)))
    with pytest.raises(InputError, match=r"row 2 has minimum .* and sum 1.5; .* say given='logits'"):
        inception_score(np.where(np.arange(6)[:, None] == 2, 1.5 * p, p), "probabilities")
    with pytest.raises(InputError, match="row 0 has minimum -"):
        inception_score(rng.normal(size=(6, 4)) - 3, "probabilities")


@pytest.mark.parametrize("splits", [0, 4])
def test_a_split_needs_two_samples(rng, splits):
    with pytest.raises(InputError, match=f"{splits} splits need at least 2 rows each, got 7"):
        inception_score(rng.normal(size=(7, 4)), splits=splits)
