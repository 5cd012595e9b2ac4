"""The metrics of probes, whose names stand for the networks that the protocol has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sd2eval.metrics import METRICS
from sd2eval.metrics.metric import Metric
from sd2eval.probes.base import Bench, Unavailable
from sd2eval.statistics import Interval

OF_FAMILY: Mapping[str, Mapping[str, str]] = {
    "mini": {"distance": "fd_mini", "score": "clip_mini", "perceptual": "lpips_mini"},
    "published": {"distance": "fid", "score": "clip_score", "perceptual": "lpips"},
}
"""By role of the protocol, where the settings of a probe name none."""

RANGES: Mapping[str, tuple[float, float]] = {
    "cosine": (-1.0, 1.0),
    "100 x cosine": (0.0, 100.0),
    "squared feature distance": (0.0, math.inf),
}
"""Between what numbers of a unit lie."""


def possible(metric: Metric, low: float, high: float) -> Interval:
    """Return an interval of a metric without the numbers that it cannot have; few images leave a wide one."""
    least, most = RANGES.get(metric.unit, (-math.inf, math.inf))
    return Interval(max(low, least), min(high, most))


def of_role(bench: Bench, probe: str, role: str) -> Metric:
    """Return the metric of a role in `settings.PROBE.metrics`.

    Raises:
        Unavailable: its name stands for another network than the protocol's.
    """
    name = str(bench.settings["metrics"][role])
    return _checked(bench, name, f"settings.{probe}.metrics.{role}={name}")


def of_family(bench: Bench, role: str) -> Metric:
    """Return the metric of a role of the protocol in the bench's family.

    Raises:
        Unavailable: its name stands for another network than the protocol's.
    """
    name = OF_FAMILY[bench.family][role]
    return _checked(bench, name, name)


def _checked(bench: Bench, name: str, where: str) -> Metric:
    """Return a metric if its name stands for the protocol's network."""
    metric = METRICS[name]
    kind = bench.protocol.extractor(str(metric.extractor)).kind
    if metric.needs and kind not in metric.needs:
        raise Unavailable(
            f"{where}: needs a network of kind {' or '.join(metric.needs)}, "
            f"and protocol.{metric.extractor} is {kind}"
        )
    return metric
