"""Means of one value per image, and which checkpoints have which of them."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, Metric, Reference, applicable, evaluate
from sd2eval.metrics.paired import mean_of_images

PAIRED = [metric for metric in METRICS.values() if metric.kind == "paired"]
IDS = [metric.name for metric in PAIRED]
MINI = "package:mini/weights/depth_estimator"


def names(conditioning: str, **definition: object) -> list[str]:
    return [metric.name for metric in applicable(list(METRICS), {"conditioning": conditioning} | definition)]


def test_the_value_is_the_mean_and_the_influence_what_is_left(rng: np.random.Generator) -> None:
    values = rng.normal(size=30).astype(np.float32)
    estimate = mean_of_images(values)
    assert estimate.value == pytest.approx(values.astype(np.float64).mean(), rel=1e-14)
    np.testing.assert_allclose(estimate.influence, values - estimate.value, atol=1e-15)
    assert estimate.influence.dtype == np.float64


@pytest.mark.parametrize("metric", PAIRED, ids=IDS)
def test_captions_of_one_image_are_one_observation(metric: Metric, rng: np.random.Generator) -> None:
    values, groups = rng.normal(size=24), np.repeat(np.arange(8), 3)
    sums = [(values - values.mean())[groups == group].sum() for group in range(8)]
    found = evaluate(metric, values, None, groups)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(np.sqrt(8 / 7 * np.square(sums).sum()) / 24)
    assert found.n == 24
    alone = evaluate(metric, values, None).stderr
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(24))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.nan, 2.0], "NaN or infinity in 1 of 3, first in row 1"),
        ([1.0, 2.0, np.inf], "NaN or infinity in 1 of 3, first in row 2"),
        ([1.0], r"n >= 2, got \[1\]"),
        ([[1.0, 2.0]], r"got \[1, 2\]"),
        ([1, 2], "floating point"),
        (["a", "b"], "floating point"),
    ],
)
def test_what_is_no_value_of_an_image_never_becomes_a_number(values: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(METRICS["psnr"], values, None)


def test_a_counterpart_is_refused(rng: np.random.Generator) -> None:
    for against in (Reference(rng.normal(size=(5, 3))), rng.normal(size=6)):
        with pytest.raises(InputError, match="psnr is computed against nothing more"):
            evaluate(METRICS["psnr"], rng.normal(size=6), against)


def test_each_kind_of_checkpoint_has_its_metrics() -> None:
    features = [metric.name for metric in METRICS.values() if metric.kind != "paired"]
    whole = ["psnr", "ssim", "lpips", "lpips_mini"]
    assert names("text") == features
    assert names("upscaling") == [*features, *whole]
    assert names("inpainting") == [*features, *whole, *(f"{name}_mask" for name in whole)]
    assert names("depth") == [*features, "depth_agreement"]


@pytest.mark.parametrize(
    ("definition", "name"),
    [
        ({"source": "sd2-community/stable-diffusion-2-depth", "components": {}}, "depth_agreement"),
        ({"source": "package:mini/weights/512-depth", "components": {}}, "depth_agreement_mini"),
        ({"source": "mine", "components": {"depth_estimator": MINI}}, "depth_agreement_mini"),
        ({"source": "package:mini/weights/x", "components": {"depth_estimator": "/mine"}}, "depth_agreement"),
    ],
)
def test_depth_agreement_is_named_after_the_estimator_that_sees_the_depth(
    definition: dict[str, object], name: str
) -> None:
    assert names("depth", **definition)[-1] == name
    assert sum(metric.startswith("depth") for metric in names("depth", **definition)) == 1


def test_metrics_keep_the_order_of_the_protocol() -> None:
    chosen = ["ssim", "fid", "depth_agreement", "psnr"]
    assert [m.name for m in applicable(chosen, {"conditioning": "upscaling"})] == ["ssim", "fid", "psnr"]


def test_a_definition_of_an_older_run_has_the_metrics_that_every_checkpoint_has() -> None:
    assert [m.name for m in applicable(["fd_mini", "psnr", "depth_agreement"], {})] == ["fd_mini"]
