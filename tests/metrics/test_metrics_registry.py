import subprocess
import sys

import numpy as np
import pytest

from sd2eval import metrics, plugins
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, ORDER, Reference, evaluate
from sd2eval.statistics import standard_error

OF_FEATURES = [
    metric.name for metric in METRICS.values() if metric.output != "value" and metric.kind != "paired"
]
DISTANCES = [name for name in OF_FEATURES if METRICS[name].against == "reference"]
COMPARING = [name for name in OF_FEATURES if METRICS[name].against]
WHOLE = ["psnr", "ssim", "lpips", "lpips_mini"]
PAIRED = [*WHOLE, *(f"{name}_mask" for name in WHOLE), "depth_agreement", "depth_agreement_mini"]


@pytest.fixture
def data(rng):
    """By `Metric.against`: features of 40 images, and what they are compared with."""
    features = rng.normal(size=(40, 6)) + 0.3
    return {
        "reference": (features, Reference(rng.normal(size=(50, 6)))),
        "texts": rng.normal(size=(2, 40, 6)),
        None: (features, None),
    }


def test_names_are_keys_and_in_the_order_of_tables():
    assert all(metric.name == name for name, metric in METRICS.items())
    assert [*METRICS][: len(METRICS) - len(PAIRED)] == [name for name in METRICS if name not in PAIRED]
    assert {"fid", "kid", "clip_score", "precision", "recall", "density", "coverage", "inception_score"} <= {
        *METRICS
    }
    kinds = [metric.kind for metric in METRICS.values()]
    assert [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind] == list(ORDER)
    # What a protocol's own network gives goes before what a further one does: it is the plot's axis.
    assert list(METRICS).index("fid") < list(METRICS).index("fd_dinov2")
    assert list(METRICS).index("clip_mini") < list(METRICS).index("clip_score_h_14")


def test_two_metrics_of_one_name_are_refused(monkeypatch):
    modules = {"one": "sd2eval.metrics.declared.fid", "two": "sd2eval.metrics.declared.fid"}
    monkeypatch.setattr(plugins, "metric_modules", lambda: modules)
    with pytest.raises(InputError, match=r"metric fid: declared by .*fid and by .*fid"):
        metrics._declared()


def test_a_module_without_metrics_is_refused(monkeypatch):
    monkeypatch.setattr(plugins, "metric_modules", lambda: {"none": "sd2eval.metrics.claims"})
    with pytest.raises(InputError, match=r"plug-in sd2eval.metrics.claims: METRICS must be"):
        metrics._declared()


def test_a_mini_metric_differs_from_the_real_one_only_in_words():
    pairs = [("fid", "fd_mini"), ("kid", "kid_mini"), ("clip_score", "clip_mini"), ("lpips", "lpips_mini")]
    pairs += [("lpips_mask", "lpips_mini_mask"), ("depth_agreement", "depth_agreement_mini")]
    pairs += [("cmmd", "cmmd_mini"), ("fid_infinity", "fd_infinity_mini")]
    pairs += [(name, f"{name}_mini") for name in ("precision", "recall", "density", "coverage")]
    for real, mini in pairs:
        a, b = METRICS[real], METRICS[mini]
        assert (a.mini, b.mini) == (False, True)
        assert (a.direction, a.unit, a.kind, a.estimate) == (b.direction, b.unit, b.kind, b.estimate)
        assert (a.applies_to, a.part, a.against, a.output) == (b.applies_to, b.part, b.against, b.output)
        assert (a.claim, a.smallest, a.factor) == (b.claim, b.smallest, b.factor)
        assert a.label != b.label


@pytest.mark.parametrize("name", COMPARING)
def test_direction_says_what_better_means(name, rng):
    """A perfect result must win against a bad one in the declared direction."""
    metric = METRICS[name]
    truth = rng.normal(size=(60, 5))
    against = Reference(truth) if metric.against == "reference" else truth
    good = evaluate(metric, truth + 0.01 * rng.normal(size=truth.shape), against).value
    bad = evaluate(metric, rng.normal(size=truth.shape) + 2, against).value
    assert (good > bad) == (metric.direction == "higher")


@pytest.mark.parametrize("name", OF_FEATURES)
def test_groups_reach_the_standard_error(name, data):
    metric = METRICS[name]
    features, against = data[metric.against]
    groups = np.arange(40) // 4
    found = evaluate(metric, features, against, groups)
    influence = metric.estimate(features, against).influence
    assert found.stderr == standard_error(influence, groups) != standard_error(influence)
    assert found.n == 40


def test_reference_derives_its_parts_once(data):
    reference = data["reference"][1]
    for part in ("frechet", "kernel", "precision", "density", "clip"):
        assert getattr(reference, part) is getattr(reference, part)
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
    features, against = data[metric.against]
    with pytest.raises(InputError, match=message):
        evaluate(metric, breaks(features), against)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_reference_is_refused(fault, data):
    breaks, message = BROKEN[fault]
    with pytest.raises(InputError, match="reference features: .*" + message):
        Reference(breaks(data["reference"][1].features))


@pytest.mark.parametrize("name", COMPARING)
def test_another_width_is_refused(name, data):
    metric = METRICS[name]
    features, against = data[metric.against]
    with pytest.raises(InputError, match=r"d = 5, .* d = 6"):
        evaluate(metric, features[:, :5], against)


@pytest.mark.parametrize("name", DISTANCES)
def test_constant_images_are_refused(name, data):
    reference = data["reference"][1]
    with pytest.raises(InputError, match="all 7 rows are equal"):
        evaluate(METRICS[name], np.ones((7, 6)), reference)
    with pytest.raises(InputError, match="reference features: all 7 rows are equal"):
        Reference(np.ones((7, 6)))


@pytest.mark.parametrize("name", OF_FEATURES)
def test_the_wrong_kind_of_counterpart_is_refused(name, data):
    metric = METRICS[name]
    features, _ = data[metric.against]
    others = {"reference": data["reference"][1], "texts": data["texts"][1], None: None}
    for counterpart in (other for kind, other in others.items() if kind != metric.against):
        with pytest.raises(InputError, match=f"{name} is computed against"):
            evaluate(metric, features, counterpart)


def test_a_finished_run_is_evaluated_without_torch():
    modules = "sd2eval.metrics, sd2eval.statistics, sd2eval.pareto, sd2eval.tables, sd2eval.plots"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
