"""How many images are enough: when a cell may stop because its standard errors are small enough.

Stopping the first time an estimated standard error is small favours the times when it is too small, so the
intervals of what was stopped cover less than they say. The remedy of Chow and Robbins (1965) is a first look
that is late enough for the error to be known, of Pocock (1977) few looks, at sizes fixed beforehand. How well
the intervals then hold is measured by `benchmarks/stopping.py`, in docs/uncertainty.md. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from sd2eval.errors import InputError

AUTO = "auto"
"""`prompts.n` of a run whose cells stop by themselves."""
FIRST_LOOK = 500
"""Captions before which nothing stops: from 200 on, rare or far-flung values cover less than 92%."""


def check_targets(targets: Mapping[str, float]) -> None:
    """Refuse targets that no cell can reach or that ask for nothing.

    Args:
        targets: the standard error asked of each metric, by name, in the metric's unit.

    Raises:
        InputError: no metric is named, or a target is not a number above 0.
    """
    if not targets:
        raise InputError("prompts.n=auto needs at least one target, such as precision.fid=0.3")
    for metric, target in targets.items():
        if not 0 < target < math.inf:
            raise InputError(f"precision.{metric}={target}: a standard error to reach is a number above 0")


def looks(first: int, most: int) -> list[int]:
    """Return the numbers of captions at which a cell may stop: from `first` by a quarter each time to `most`.

    They depend on nothing else, so a run that was interrupted or cut into other shards decides alike; with
    another `most` only the last of them is another.

    Args:
        first: captions of the first look; `FIRST_LOOK` unless there is a reason.
        most: captions that there are, or that may be used; below `first` it is the only look.

    Raises:
        InputError: less than two captions, of which no standard error can be had.
    """
    if min(first, most) < 2:
        raise InputError(f"a standard error needs at least 2 captions, got {min(first, most)}")
    schedule = []
    n = first
    while n < most:
        schedule.append(n)
        n += -(-n // 4)  # a quarter more, rounded up, in whole numbers on every machine
    return [*schedule, most]


def enough(stderr: Mapping[str, float], targets: Mapping[str, float]) -> bool:
    """Say whether the standard error of each asked metric is at or below its target.

    An error of 0 is not enough: so far all values were equal, as those of a rare event that has not happened
    yet, and nothing is known about their spread. Neither is one that is not a number.

    Args:
        stderr: the standard error of each metric, clustered by image; others than those asked may be there.
        targets: the standard error asked of each metric.

    Raises:
        InputError: a metric is asked for that was not measured.
    """
    return all(0 < _of(metric, stderr) <= target for metric, target in targets.items())


def stopping_n(
    schedule: Iterable[int],
    stderr_at: Callable[[int], Mapping[str, float]],
    targets: Mapping[str, float],
) -> int | None:
    """Return the first look at which the errors are enough, or None if they are at none of these.

    A run that goes on asks again from the first look, and of a shard that reaches beyond a look only the
    captions before it count: so what is asked for is a function of the captions alone.

    Args:
        schedule: ascending numbers of captions, of `looks`, as far as their images are there.
        stderr_at: the standard errors of a cell's first n captions; not called beyond the one returned.
        targets: the standard error asked of each metric.
    """
    return next((n for n in schedule if enough(stderr_at(n), targets)), None)


def expected_n(stderr: Mapping[str, float], n: int, targets: Mapping[str, float]) -> int | None:
    """Return about how many captions the targets need, from the errors at n, which fall as 1 / sqrt(n).

    It is for display, never for the decision. Captions of one image make it too few, as they become more
    frequent with n.

    Args:
        stderr: the standard error of each metric at n.
        n: captions so far.
        targets: the standard error asked of each metric.

    Returns:
        The most that any of them needs, less than n where all errors are smaller than asked; None while an
        error is 0 or not a number, from which nothing follows.

    Raises:
        InputError: a metric is asked for that was not measured.
    """
    ratios = [_of(metric, stderr) / target for metric, target in targets.items()]
    if not all(0 < ratio < math.inf for ratio in ratios):
        return None
    return math.ceil(n * max(ratios) ** 2)


def _of(metric: str, stderr: Mapping[str, float]) -> float:
    if metric not in stderr:
        known = ", ".join(sorted(stderr)) or "none"
        raise InputError(f"precision.{metric}: this run has no such metric; it has {known}")
    return stderr[metric]
