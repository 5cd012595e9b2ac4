"""The same features through other people's implementations; test dependencies, never used at run time."""

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial

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


def test_kernel_agrees_with_torchmetrics_own_class(features):
    """Its subsets are drawn by torch's generator; one of all samples leaves nothing to draw."""
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torchmetrics.image.kid")

    class Given(torch.nn.Module):
        """Stands for Inception: the features are given."""

        def forward(self, images):
            return images

    x, y = features[0], features[1][:300]
    metric = kid.KernelInceptionDistance(Given(), subsets=1, subset_size=300).set_dtype(torch.float64)
    metric.update(torch.from_numpy(y), real=True)
    metric.update(torch.from_numpy(x), real=False)
    theirs = float(metric.compute()[0])
    assert evaluate(METRICS["kid"], x, Reference(y)).value == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("metric", ["precision", "recall"])
def test_precision_and_recall_agree_with_torch_fidelity(clouds, metric):
    torch = pytest.importorskip("torch")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    theirs = prc.prc_features_to_metric(*map(torch.from_numpy, clouds), prc_neighborhood=3, verbose=False)
    assert 0.05 < theirs[metric] < 0.95
    ours = evaluate(METRICS[metric], clouds[0], Reference(clouds[1])).value
    assert ours == pytest.approx(theirs[metric], rel=1e-6)  # theirs is rounded to float32


@pytest.fixture
def clouds(rng):
    """Two clouds that overlap in part, so that none of the four numbers is 0 or 1."""
    return 1.1 * rng.normal(size=(300, 12)) + 0.4, rng.normal(size=(400, 12))


def prdc_formula(real, fake, k):
    """The four numbers as the package prdc 0.2 (Naeem et al. 2020) has them, one line each.

    It needs scikit-learn, so the tests do not depend on it; `benchmarks/parity.py` runs the package itself.
    """
    between = scipy.spatial.distance.cdist(real, fake)
    own = [np.sort(scipy.spatial.distance.cdist(side, side), axis=1)[:, k] for side in (real, fake)]
    radius_real, radius_fake = own[0][:, None], own[1][None, :]
    return {
        "precision": (between < radius_real).any(axis=0).mean(),
        "recall": (between < radius_fake).any(axis=1).mean(),
        "density": (between < radius_real).sum(axis=0).mean() / k,
        "coverage": (between.min(axis=1) < own[0]).mean(),
    }


@pytest.mark.parametrize("metric", ["precision", "recall", "density", "coverage"])
def test_neighbours_agree_with_the_formula_of_prdc(clouds, metric):
    theirs = prdc_formula(clouds[1], clouds[0], 5 if metric in ("density", "coverage") else 3)[metric]
    assert 0.05 < theirs < 0.95
    ours = evaluate(METRICS[metric], clouds[0], Reference(clouds[1])).value
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_prdc_package_agrees_where_it_is_installed(clouds):
    prdc = pytest.importorskip("prdc", reason="prdc needs scikit-learn; install both to compare with it")
    theirs = prdc.compute_prdc(clouds[1], clouds[0], nearest_k=5)
    for metric in ("density", "coverage"):
        ours = evaluate(METRICS[metric], clouds[0], Reference(clouds[1])).value
        assert ours == pytest.approx(theirs[metric], rel=1e-12)
    assert prdc_formula(clouds[1], clouds[0], 5) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("n", [200, 1009])
def test_inception_score_agrees_with_torch_fidelity(rng, n):
    torch = pytest.importorskip("torch")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = (3 * rng.normal(size=(n, 1008))).astype(np.float32)
    theirs = isc.isc_features_to_metric(torch.from_numpy(logits), splits=1)[isc.KEY_METRIC_ISC_MEAN]
    assert evaluate(METRICS["inception_score"], logits, None).value == pytest.approx(theirs, rel=1e-12)
