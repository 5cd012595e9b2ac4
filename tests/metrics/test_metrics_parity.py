"""The same features through other people's implementations; test dependencies, never used at run time."""

import numpy as np
import pytest
import scipy.linalg

from sd2eval.metrics import METRICS, Reference, evaluate

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@pytest.fixture
def features(rng):
    """Skewed, correlated and positive, like pooled activations; full rank, so that all can be computed."""
    mix = rng.normal(size=(48, 48)) * np.exp(-2 * np.arange(48) / 48)
    x = np.maximum(rng.normal(size=(300, 48)) @ mix + 0.3, 0)
    y = np.maximum(1.2 * rng.normal(size=(400, 48)) @ mix, 0)
    return x, y


def moments(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def test_frechet_agrees_with_scipy_sqrtm(features):
    (mu, s), (mu_r, s_r) = map(moments, features)
    root = scipy.linalg.sqrtm(s @ s_r).real
    theirs = np.square(mu - mu_r).sum() + np.trace(s + s_r - 2 * root)
    assert evaluate(METRICS["fid"], features[0], Reference(features[1])).value == pytest.approx(
        theirs, rel=1e-8
    )


def test_frechet_agrees_with_torchmetrics(features):
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    stats = [torch.from_numpy(part) for side in features for part in moments(side)]
    theirs = float(fid._compute_fid(*stats))
    assert evaluate(METRICS["fid"], features[0], Reference(features[1])).value == pytest.approx(
        theirs, rel=1e-8
    )


def test_frechet_agrees_with_torch_fidelity(features):
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    stats = [fid.fid_features_to_statistics(torch.from_numpy(side)) for side in features]
    theirs = fid.fid_statistics_to_metric(*stats, False)[fid.KEY_METRIC_FID]
    assert evaluate(METRICS["fid"], features[0], Reference(features[1])).value == pytest.approx(
        theirs, rel=1e-8
    )


def test_frechet_agrees_with_pytorch_fid_and_clean_fid(features):
    (mu, s), (mu_r, s_r) = map(moments, features)
    ours = evaluate(METRICS["fid"], features[0], Reference(features[1])).value
    for name, function in (
        ("pytorch_fid.fid_score", "calculate_frechet_distance"),
        ("cleanfid.fid", "frechet_distance"),
    ):
        theirs = getattr(pytest.importorskip(name), function)(mu, s, mu_r, s_r)
        assert ours == pytest.approx(float(theirs), rel=1e-6)


def test_kernel_agrees_with_torch_fidelity(features):
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features[0], features[1][:300]  # theirs needs equal sizes
    theirs = kid.kernel_mmd(x, y, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1.0)
    assert evaluate(METRICS["kid"], x, Reference(y)).value == pytest.approx(float(theirs), rel=1e-9)


def test_kernel_agrees_with_torchmetrics(features):
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = features[0], features[1][:300]
    theirs = float(kid.poly_mmd(torch.from_numpy(y), torch.from_numpy(x)))
    assert evaluate(METRICS["kid"], x, Reference(y)).value == pytest.approx(theirs, rel=1e-9)


def test_kernel_agrees_with_clean_fid(features):
    """Where its subsets are the whole sets, so that its random order does not matter."""
    fid = pytest.importorskip("cleanfid.fid")
    x, y = features[0], features[1][:300]
    theirs = fid.kernel_distance(x, y, num_subsets=2, max_subset_size=300)
    assert evaluate(METRICS["kid"], x, Reference(y)).value == pytest.approx(theirs, rel=1e-9)


def test_mean_over_subsets_agrees_with_torch_fidelity(features):
    """Their KID is the mean of ours over random subsets, drawn by NumPy's legacy generator."""
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features
    theirs = kid.kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=5,
        kid_subset_size=50,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1.0,
        rng_seed=11,
        verbose=False,
    )[kid.KEY_METRIC_KID_MEAN]
    rng, values = np.random.RandomState(11), []
    for _ in range(5):
        subset = x[rng.choice(300, 50, replace=False)]
        values.append(
            evaluate(METRICS["kid"], subset, Reference(y[rng.choice(400, 50, replace=False)])).value
        )
    assert np.mean(values) == pytest.approx(theirs, rel=1e-9)
