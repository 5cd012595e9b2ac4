"""The metrics that settings name, for the networks that the protocol has."""

from __future__ import annotations

from sd2eval.metrics import METRICS
from sd2eval.metrics.metric import Metric
from sd2eval.probes.base import Bench, Unavailable


def of_role(bench: Bench, probe: str, role: str) -> Metric:
    """Return the metric of a role in `settings.PROBE.metrics`.

    Raises:
        Unavailable: its name stands for another network than the protocol's.
    """
    name = str(bench.settings["metrics"][role])
    metric = METRICS[name]
    kind = bench.protocol.extractor(str(metric.extractor)).kind
    if metric.needs and kind not in metric.needs:
        raise Unavailable(
            f"settings.{probe}.metrics.{role}={name}: needs a network of kind {' or '.join(metric.needs)}, "
            f"and protocol.{metric.extractor} is {kind}"
        )
    return metric
