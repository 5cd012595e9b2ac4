"""Every metric answers broken arrays with one clear line and never with a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics.clip_mmd import clip_mmd, clip_reference
from sd2eval.metrics.frechet import frechet_debiased, frechet_reference, gaussian
from sd2eval.metrics.frechet_infinity import frechet_infinity
from sd2eval.metrics.inception_score import inception_score
from sd2eval.metrics.neighbours import coverage, density, neighbour_reference, precision, recall
from sd2eval.statistics import Estimate


def _neighbours(features: Any) -> Any:
    return neighbour_reference(features, 3)


def _frechet(features: Any) -> Any:
    return frechet_reference(gaussian(features))


AGAINST: dict[str, tuple[Callable[..., Estimate], Callable[[Any], Any]]] = {
    "precision": (precision, _neighbours),
    "recall": (recall, _neighbours),
    "density": (density, _neighbours),
    "coverage": (coverage, _neighbours),
    "clip_mmd": (clip_mmd, clip_reference),
    "frechet_debiased": (frechet_debiased, _frechet),
    "frechet_infinity": (frechet_infinity, _frechet),
}

BROKEN = {
    "NaN": (lambda x: np.where(np.arange(len(x))[:, None] == 2, np.nan, x), "NaN, infinity.*row 2"),
    "infinity": (lambda x: np.where(np.arange(len(x))[:, None] >= 3, -np.inf, x), "NaN, infinity"),
    "absurd size": (lambda x: 1e60 * x, r"beyond 1e\+50"),
    "one row": (lambda x: x[:1], "at least 2 rows are needed, got 1"),
    "no columns": (lambda x: x[:, :0], "d = 0"),
    "one axis": (lambda x: x[0], r"expected shape \[n, d\]"),
    "text": (lambda x: x.astype(str), "expected real numbers"),
    "constant": (lambda x: np.ones_like(x), "all 30 rows are equal"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", AGAINST)
def test_broken_features_are_refused_on_either_side(name, fault, rng):
    (metric, reference), (breaks, message) = AGAINST[name], BROKEN[fault]
    x, y = rng.normal(size=(2, 30, 5))
    with pytest.raises(InputError, match=message):
        metric(breaks(x), reference(y))
    with pytest.raises(InputError, match=message):
        reference(breaks(y))


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_logits_are_refused(fault, rng):
    breaks, message = BROKEN[fault]
    with pytest.raises(InputError, match="logits: .*" + message):
        inception_score(breaks(rng.normal(size=(30, 5))))


@pytest.mark.parametrize("name", AGAINST)
def test_another_width_is_refused(name, rng):
    metric, reference = AGAINST[name]
    with pytest.raises(InputError, match=r"d = 4, the reference d = 5"):
        metric(rng.normal(size=(30, 4)), reference(rng.normal(size=(30, 5))))


@pytest.mark.parametrize("name", AGAINST)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_floats_are_widened_before_any_arithmetic(name, dtype, rng):
    metric, reference = AGAINST[name]
    x, y = rng.normal(size=(2, 30, 5)).astype(dtype)
    wide = metric(x.astype(np.float64), reference(y.astype(np.float64)))
    assert metric(x, reference(y)).value == wide.value
    assert metric(x, reference(y)).influence.dtype == np.float64
    assert abs(wide.influence.mean()) < 1e-9
