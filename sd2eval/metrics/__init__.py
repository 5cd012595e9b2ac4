"""The metrics by name, and how one is evaluated; `metric.Metric` says what describes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import NoneType
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval import plugins
from sd2eval.errors import InputError
from sd2eval.metrics.claims import Claim, claim
from sd2eval.metrics.metric import ROLES, Kind, Metric, Part, array_name
from sd2eval.metrics.paired import mean_of_images
from sd2eval.metrics.reference import Reference
from sd2eval.records import Direction
from sd2eval.statistics import standard_error

__all__ = [
    "METRICS",
    "ROLES",
    "Claim",
    "Kind",
    "Measurement",
    "Metric",
    "Part",
    "Reference",
    "applicable",
    "array_name",
    "claim",
    "evaluate",
    "mean_of_images",
]

MINI_WEIGHTS = "package:mini/weights"
"""Where a checkpoint's source lies in the embedded family."""


class Registry(Mapping[str, Metric]):
    """Every metric by name, in the order of tables, with the module that declares it.

    The modules are imported at the first question, so that they themselves can import from this package.
    """

    def __getitem__(self, name: str) -> Metric:
        return self._found[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def module(self, name: str) -> str:
        """Return the module that declares a metric."""
        return self._found[name][1]

    @cached_property
    def _found(self) -> dict[str, tuple[Metric, str]]:
        return _declared()


def _declared() -> dict[str, tuple[Metric, str]]:
    """Return every metric and its module by name, from the modules that declare them.

    Raises:
        InputError: a module cannot be imported or declares none, one is declared wrongly, or two have the
            same name.
    """
    found: dict[str, tuple[Metric, str]] = {}
    for module in plugins.metric_modules().values():
        metrics, where = getattr(plugins.load(module), "METRICS", None), plugins.describe(module)
        whole = isinstance(metrics, Sequence) and all(isinstance(metric, Metric) for metric in metrics)
        if not (metrics and whole):
            raise InputError(f"plug-in {where}: METRICS must be a sequence of sd2eval.metrics.Metric")
        for metric in metrics:
            if metric.name in found:
                there = plugins.describe(found[metric.name][1])
                raise InputError(f"metric {metric.name}: declared by {there} and by {where}")
            if plugins.origin(module):
                _check(metric, where)
            found[metric.name] = metric, module
    return dict(sorted(found.items(), key=lambda item: _place(item[1][0])))


def _check(metric: Metric, where: str) -> None:
    """Refuse a declaration of another package that the sweep or the tables could not work with."""
    kinds = tuple(kind for kind in ORDER if kind != "paired")  # paired ones are measured by `sd2eval.paired`
    allowed = {"kind": kinds, "direction": get_args(Direction), "against": tuple(COUNTERPARTS)}
    for key, choices in allowed.items():
        if getattr(metric, key) not in choices:
            raise InputError(
                f"plug-in {where}: metric {metric.name}: {key} is {getattr(metric, key)!r}; allowed: "
                f"{', '.join(map(str, choices))}"
            )
    if metric.against and metric.output != "features":
        raise InputError(
            f"plug-in {where}: metric {metric.name}: output is {metric.output!r}; what is compared with the "
            f"{metric.against} is `features`"
        )
    if not metric.extractor:
        raise InputError(
            f"plug-in {where}: metric {metric.name}: `extractor` must name a YAML in conf/extractor/, or one "
            f"of {', '.join(ROLES)}"
        )


def _place(metric: Metric) -> tuple[int, bool]:
    """Return where a metric stands in tables: by kind, those of the protocol's own networks first."""
    return ORDER.index(metric.kind), metric.extractor not in (*ROLES, None)


ORDER: tuple[Kind, ...] = ("distance", "kernel", "score", "other", "paired")
"""Of the kinds in tables."""
METRICS = Registry()
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
