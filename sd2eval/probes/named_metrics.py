"""The metrics of probes, whose names stand for the networks that the protocol has."""

from __future__ import annotations

from collections.abc import Mapping

from sd2eval.metrics import METRICS
from sd2eval.metrics.metric import Metric
from sd2eval.probes.base import Bench, Unavailable

OF_FAMILY: Mapping[str, Mapping[str, str]] = {
    "mini": {"distance": "fd_mini", "score": "clip_mini", "perceptual": "lpips_mini"},
    "published": {"distance": "fid", "score": "clip_score", "perceptual": "lpips"},
}
"""By role of the protocol, where the settings of a probe name none."""


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
