"""The metrics by name, and how one is evaluated; `metric.Metric` says what describes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval import plugins
from sd2eval.errors import InputError
from sd2eval.metrics.metric import ROLES, Kind, Metric, Part, array_name
from sd2eval.metrics.reference import Reference
from sd2eval.statistics import standard_error

__all__ = [
    "METRICS",
    "ROLES",
    "Kind",
    "Measurement",
    "Metric",
    "Part",
    "Reference",
    "applicable",
    "array_name",
    "evaluate",
]

MINI_WEIGHTS = "package:mini/weights"
"""Where a checkpoint's source lies in the embedded family."""


def _declared() -> dict[str, Metric]:
    """Return every metric by name, from the modules that declare them.

    Raises:
        InputError: a module declares none, or two declare the same name.
    """
    found: dict[str, Metric] = {}
    owners: dict[str, str] = {}
    for module in plugins.metric_modules().values():
        metrics = getattr(plugins.load(module), "METRICS", None)
        if not metrics or not all(isinstance(metric, Metric) for metric in metrics):
            raise InputError(f"plug-in {module}: METRICS must be a sequence of sd2eval.metrics.Metric")
        for metric in metrics:
            if metric.name in found:
                raise InputError(f"metric {metric.name}: declared by {owners[metric.name]} and by {module}")
            found[metric.name], owners[metric.name] = metric, module
    return dict(sorted(found.items(), key=lambda item: _place(item[1])))


def _place(metric: Metric) -> tuple[int, bool]:
    """Return where a metric stands in tables: by kind, those of the protocol's own networks first."""
    return ORDER.index(metric.kind), metric.extractor not in (*ROLES, None)


ORDER: tuple[Kind, ...] = ("distance", "kernel", "score", "other", "paired")
"""Of the kinds in tables."""
METRICS: dict[str, Metric] = _declared()
"""Every metric by name, in the order of tables."""


def applicable(names: Sequence[str], definition: Mapping[str, Any]) -> list[Metric]:
    """Return those of a protocol's metrics that say something about a checkpoint's images, in their order.

    Depth agreement is measured with the checkpoint's own estimator, so its name follows the checkpoint: the
    mini world's estimator gives `depth_agreement_mini` and no other does.

    Args:
        names: keys of `METRICS`.
        definition: the checkpoint's, as in the config of `run.json`.
    """
    kind = definition.get("conditioning", "text")
    metrics = [METRICS[name] for name in names if kind in METRICS[name].applies_to]
    mini = _has_mini_estimator(definition)
    return [metric for metric in metrics if metric.part != "depth" or metric.mini == mini]


def _has_mini_estimator(definition: Mapping[str, Any]) -> bool:
    components = definition.get("components") or {}
    source = components.get("depth_estimator") or definition.get("source") or ""
    return str(source).startswith(MINI_WEIGHTS)


class Measurement(NamedTuple):
    """The numbers of a `Score`, and what each sample contributed."""

    value: float
    stderr: float
    n: int
    influence: NDArray[np.float64]
    """As in `Estimate.influence`."""


COUNTERPARTS: dict[str | None, tuple[str, Any]] = {
    "reference": ("a Reference", Reference),
    "texts": ("text embeddings", np.ndarray | list),
    None: ("nothing more", NoneType),
}
"""What a metric is computed against, by `Metric.against`, in words and as a type."""


def evaluate(
    metric: Metric,
    features: ArrayLike,
    against: Reference | ArrayLike | None,
    groups: ArrayLike | None = None,
) -> Measurement:
    """Return value, standard error, n and influences of a metric.

    Args:
        metric: an entry of `METRICS`.
        features: its extractor's output for the generated images, shape [n, d], any real dtype; the values
            [n] of a metric that is a mean of them.
        against: by `metric.against` a `Reference`, the captions' embeddings [n, d], or None.
        groups: COCO image id of each sample, shape [n]; captions of one image are not independent.

    Raises:
        InputError: `against` is of the other kind, or see the metric.
    """
    wanted, kind = COUNTERPARTS[metric.against]
    if not isinstance(against, kind):
        raise InputError(f"{metric.name} is computed against {wanted}, got {type(against).__name__}")
    estimate = metric.estimate(features, against)
    stderr = standard_error(estimate.influence, groups)
    return Measurement(estimate.value, stderr, estimate.n, estimate.influence)
