import subprocess
import sys

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, Reference, evaluate
from sd2eval.statistics import standard_error

DISTANCES = ["fid", "kid", "fd_mini", "kid_mini"]
SCORES = ["clip_score", "clip_mini"]
OF_FEATURES = [*DISTANCES, *SCORES]
WHOLE = ["psnr", "ssim", "lpips", "lpips_mini"]
PAIRED = [*WHOLE, *(f"{name}_mask" for name in WHOLE), "depth_agreement", "depth_agreement_mini"]


@pytest.fixture
def data(rng):
    return {
        "distance": (rng.normal(size=(40, 6)) + 0.3, rng.normal(size=(50, 6))),
        "score": rng.normal(size=(2, 40, 6)),
    }


def test_names_are_keys_and_complete():
    features = ["fid", "kid", "clip_score", "fd_mini", "kid_mini", "clip_mini"]
    assert list(METRICS) == [*features, *PAIRED]
    assert set(features) == set(OF_FEATURES)
    assert all(metric.name == name for name, metric in METRICS.items())


def test_a_mini_metric_differs_from_the_real_one_only_in_words():
    pairs = [("fid", "fd_mini"), ("kid", "kid_mini"), ("clip_score", "clip_mini"), ("lpips", "lpips_mini")]
    pairs += [("lpips_mask", "lpips_mini_mask"), ("depth_agreement", "depth_agreement_mini")]
    for real, mini in pairs:
        a, b = METRICS[real], METRICS[mini]
        assert (a.mini, b.mini) == (False, True)
        assert (a.direction, a.unit, a.kind, a.estimate) == (b.direction, b.unit, b.kind, b.estimate)
        assert (a.applies_to, a.part) == (b.applies_to, b.part)
        assert a.label != b.label


@pytest.mark.parametrize("name", OF_FEATURES)
def test_direction_says_what_better_means(name, rng):
    """A perfect result must win against a bad one in the declared direction."""
    metric = METRICS[name]
    truth = rng.normal(size=(60, 5))
    against = Reference(truth) if metric.extractor_role == "distance" else truth
    good = evaluate(metric, truth + 0.01 * rng.normal(size=truth.shape), against).value
    bad = evaluate(metric, rng.normal(size=truth.shape) + 2, against).value
    assert (good > bad) == (metric.direction == "higher")


@pytest.mark.parametrize("name", OF_FEATURES)
def test_groups_reach_the_standard_error(name, data):
    metric = METRICS[name]
    features, other = data[metric.extractor_role]
    against = Reference(other) if metric.extractor_role == "distance" else other
    groups = np.arange(40) // 4
    found = evaluate(metric, features, against, groups)
    influence = metric.estimate(features, against).influence
    assert found.stderr == standard_error(influence, groups) != standard_error(influence)
    assert found.n == 40


def test_reference_derives_its_parts_once(data):
    reference = Reference(data["distance"][1])
    assert reference.frechet is reference.frechet
    assert reference.kernel is reference.kernel
    assert len(reference) == 50


BROKEN = {
    "NaN": (
        lambda x: np.where(np.arange(len(x))[:, None] == 2, np.nan, x),
        r"NaN, infinity.* in 1 of \d+ rows.*row 2",
    ),
    "infinity": (lambda x: np.where(np.arange(len(x))[:, None] >= 3, np.inf, x), "NaN, infinity"),
    "absurd size": (lambda x: 1e60 * x, r"beyond 1e\+50"),
    "one row": (lambda x: x[:1], "at least 2 rows are needed, got 1"),
    "no rows": (lambda x: x[:0], "at least 2 rows are needed, got 0"),
    "no columns": (lambda x: x[:, :0], "d = 0"),
    "one axis": (lambda x: x[0], r"expected shape \[n, d\]"),
    "three axes": (lambda x: x[None], r"expected shape \[n, d\]"),
    "text": (lambda x: x.astype(str), "expected real numbers"),
    "complex": (lambda x: x + 1j, "expected real numbers"),
}


@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("fault", BROKEN)
def test_broken_features_never_become_a_number(name, fault, data):
    metric, (breaks, message) = METRICS[name], BROKEN[fault]
    features, other = data[metric.extractor_role]
    against = Reference(other) if metric.extractor_role == "distance" else other
    with pytest.raises(InputError, match=message):
        evaluate(metric, breaks(features), against)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_reference_is_refused(fault, data):
    breaks, message = BROKEN[fault]
    with pytest.raises(InputError, match="reference features: .*" + message):
        Reference(breaks(data["distance"][1]))


@pytest.mark.parametrize("name", OF_FEATURES)
def test_another_width_is_refused(name, data):
    metric = METRICS[name]
    features, other = data[metric.extractor_role]
    against = Reference(other) if metric.extractor_role == "distance" else other
    with pytest.raises(InputError, match=r"d = 5, .* d = 6"):
        evaluate(metric, features[:, :5], against)


@pytest.mark.parametrize("name", DISTANCES)
def test_constant_images_are_refused(name, data):
    reference = Reference(data["distance"][1])
    with pytest.raises(InputError, match="all 7 rows are equal"):
        evaluate(METRICS[name], np.ones((7, 6)), reference)
    with pytest.raises(InputError, match="reference features: all 7 rows are equal"):
        Reference(np.ones((7, 6)))


@pytest.mark.parametrize("name", OF_FEATURES)
def test_the_wrong_kind_of_counterpart_is_refused(name, data):
    metric = METRICS[name]
    features, other = data[metric.extractor_role]
    wrong = other if metric.extractor_role == "distance" else Reference(other)
    for counterpart in (wrong, None):
        with pytest.raises(InputError, match=f"{name} is computed against"):
            evaluate(metric, features, counterpart)


def test_a_finished_run_is_evaluated_without_torch():
    modules = "sd2eval.metrics, sd2eval.statistics, sd2eval.pareto, sd2eval.tables, sd2eval.plots"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
