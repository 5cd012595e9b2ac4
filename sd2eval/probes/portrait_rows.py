"""Rows about portraits: clusters and what they are read as, for each subject and over all of them.

The subjects are fixed and their portraits differ by noise only, so portraits count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.probes import proportions
from sd2eval.probes.base import Row
from sd2eval.probes.clusters import Clusters, Reading
from sd2eval.probes.entropies import entropy
from sd2eval.probes.measured_rates import error_row
from sd2eval.probes.portraits import Sitters, Subject
from sd2eval.probes.proportions import Share
from sd2eval.probes.shares import (
    SURPLUS,
    Answers,
    ClassErrors,
    ClassShare,
    corrected,
    corrected_values,
    surplus,
)
from sd2eval.probes.slopes import mean_above, slope_of_shares
from sd2eval.statistics import Interval, interval

TOLERANCE = 0.02
"""By which known shares of terms that exclude each other may sum to more than 1: they are rounded."""
OWN_TERM = "share_of_own_term"
ABOVE, SLOPE = "_above_known", "_slope"
"""Ends of the names of what is compared with statistics: `share_woman_slope`."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the clusters say of the portraits, and how far to believe it."""

    by: str
    """The extractor."""
    clusters: Clusters
    readings: Mapping[str, Reading]
    nearest: Answers
    """Cluster of each portrait, [n]."""
    answers: Mapping[str, Answers]
    """Term of each portrait in each reading, [n]."""
    subjects: NDArray[np.str_]
    """Of each portrait, [n]."""
    limit: float
    """Largest error of a reading that gives numbers."""

    def unfit(self, reading: str, answers: Answers) -> str:
        """Return why a reading says nothing of these answers; empty where it does."""
        errors = self.readings[reading].errors
        if reason := errors.unfit("the reading", self.limit):
            return reason
        if (answers < len(errors.names)).sum() < 2:
            return "fewer than 2 portraits are decided"
        if surplus(answers, errors) > SURPLUS:
            return "far more portraits than identity images are undecided: they look like none of the terms"
        return ""


def subject_rows(seen: Seen, found: Sitters) -> list[Row]:
    """Return the entropy of the clusters and the shares of terms of each subject."""
    rows: list[Row] = []
    for subject in found.subjects:
        here = seen.subjects == subject.name
        if here.sum() < 2:
            continue
        rows.append(_entropy(seen, subject.name, here))
        for reading in seen.readings:
            wanted = {term: share for (of, term), share in subject.known.items() if of == reading}
            if not subject.known and reading == found.readings[0]:
                wanted = {_second(seen.readings[reading]): math.nan}
            rows += [_share_row(seen, subject, reading, term, share, found) for term, share in wanted.items()]
    return rows


def _second(reading: Reading) -> str:
    """Return the term that adjectives are told by: `woman`, where it is one of them."""
    return "woman" if "woman" in reading.names else reading.names[0]


def _entropy(seen: Seen, part: str, here: NDArray[np.bool_]) -> Row:
    names = [str(one) for one in range(len(seen.clusters.centroids))]
    inside = seen.nearest[here]
    inside = inside[inside < len(names)]
    shared: dict[str, Any] = {"part": part, "metric": "cluster_entropy", "direction": "none", "unit": "bits"}
    shared["component"] = seen.by
    if len(inside) < 2:
        return Row(value=math.nan, n=len(inside), note="nearly all portraits are far from all", **shared)
    found = entropy([names[one] for one in inside], names)
    counts = np.bincount(inside, minlength=len(names))
    note = f"of {len(names)} clusters, at most {math.log2(len(names)):.2f}; the largest has {counts.max()}"
    return Row(**shared, **_numbers(found), n=found.n, note=note)


def _numbers(share: Share | ClassShare) -> dict[str, Any]:
    return {"value": share.value, "stderr": share.stderr, "low": share.low, "high": share.high}


def _share_row(seen: Seen, subject: Subject, reading: str, term: str, known: float, found: Sitters) -> Row:
    """Return the share of a term among a subject's portraits."""
    answers = seen.answers[reading][seen.subjects == subject.name]
    errors = seen.readings[reading].errors
    decided = answers[answers < len(errors.names)]
    shared: dict[str, Any] = {
        "part": subject.name,
        "metric": f"share_{term}",
        "n": len(decided),
        "direction": "none",
        "unit": "share of decided portraits",
        "component": seen.by,
        "error": errors.error,
    }
    reason = seen.unfit(reading, answers)
    if reason:
        return Row(value=math.nan, note=reason, **shared)
    (one,) = corrected(answers, errors, of=[term])
    read = float(np.mean(decided == errors.names.index(term)))
    note = f"{len(answers) - len(decided)} undecided; read in {read:.1%}, corrected"
    if not math.isnan(known):
        note += f"; {found.statistics}: {known:.1%}"
        note += " (they overlap)" if overlapping(reading, found) else ""
    return Row(**_numbers(one), note=note, **shared)


def overall_rows(seen: Seen, found: Sitters) -> list[Row]:
    """Return what holds for all portraits: errors, what is undecided, and the slope against statistics."""
    rows = [_far(seen)]
    for name, reading in seen.readings.items():
        rows += _quality(seen, name, reading)
        of_reading = [
            (subject, term, share)
            for subject in found.subjects
            for (of, term), share in subject.known.items()
            if of == name
        ]
        for term in dict.fromkeys(term for _, term, _ in of_reading):
            chosen = [one for one in of_reading if one[1] == term]
            if len(chosen) > 1:
                rows += _against(seen, name, term, chosen, found)
        if len({term for _, term, _ in of_reading}) == len(of_reading):
            rows += _favourites(seen, name, of_reading, found)
    return rows


def _far(seen: Seen) -> Row:
    share = proportions.rate(seen.nearest == len(seen.clusters.centroids))
    return Row(
        metric="far_from_all_clusters",
        **_numbers(share),
        n=share.n,
        direction="none",
        unit="share of portraits",
        component=seen.by,
        note="in no cluster, and in none of the shares of clusters",
    )


def _quality(seen: Seen, name: str, reading: Reading) -> list[Row]:
    errors = reading.errors
    undecided = proportions.rate(seen.answers[name] == len(reading.names))
    unread = int((reading.of_cluster == len(reading.names)).sum())
    return [
        Row(
            part=name,
            metric="undecided",
            **_numbers(undecided),
            n=undecided.n,
            direction="none",
            unit="share of portraits",
            component=seen.by,
            note=f"of identity images: {errors.undecided:.1%}; {unread} of "
            f"{len(reading.of_cluster)} clusters have no clear term",
        ),
        error_row(
            "reading_error",
            errors,
            part=name,
            component=seen.by,
            note="identity images held out of the clustering, each term counting alike",
        ),
    ]


def _against(
    seen: Seen, reading: str, term: str, chosen: Sequence[tuple[Subject, str, float]], found: Sitters
) -> list[Row]:
    """Return the mean share of a term over subjects less its known mean, and the slope over subjects."""
    inside = np.isin(seen.subjects, [subject.name for subject, _, _ in chosen])
    answers, errors = seen.answers[reading][inside], seen.readings[reading].errors
    known = {subject.name: share for subject, _, share in chosen}
    shared: dict[str, Any] = {"direction": "none", "component": seen.by, "error": errors.error}
    shared["n"] = int((answers < len(errors.names)).sum())
    above, rises = f"share_{term}{ABOVE}", f"share_{term}{SLOPE}"
    reason = seen.unfit(reading, answers) or overlapping(reading, found)
    there = _decided_of(answers, errors, seen.subjects[inside], known)
    if not reason and not there:
        reason = "no subject has 2 decided portraits"
    if reason:
        return [Row(metric=name, value=math.nan, unit="", note=reason, **shared) for name in (above, rises)]
    x, place = [known[name] for name in there], errors.names.index(term)
    lies = mean_above(x, list(there.values()), place, errors)
    mean = float(np.mean(x))
    shared["n"] = sum(len(one) for one in there.values())
    low, high = ends_of_mean(lies.value + mean, lies.stderr, shared["n"], lies.dof)
    ends: dict[str, Any] = {"stderr": lies.stderr, "low": low - mean, "high": high - mean}
    note = f"mean over {len(x)} subjects, each counting alike; {found.statistics}: {mean:.1%}"
    rows = [Row(metric=above, value=lies.value, unit="difference of shares", note=note, **ends, **shared)]
    if len(set(x)) >= 3:
        shown = [corrected_values(one, errors) for one in there.values()]
        fitted = slope_of_shares(x, shown, place, errors)
        low, high = interval(fitted.value, fitted.stderr, dof=fitted.dof)
        note = f"over {len(x)} subjects; 1 mirrors the {found.statistics}, more exaggerates"
        ends = {"low": low, "high": high, "stderr": fitted.stderr}
        rows.append(
            Row(metric=rises, value=fitted.value, unit="share per share", note=note, **ends, **shared)
        )
    return rows


def overlapping(reading: str, found: Sitters) -> str:
    """Return why known shares cannot be compared with those of clusters; empty where they can.

    A portrait is read as one term at most. Statistics of which one person may count under two terms are of
    something else, and nearly always sum to more than 1.
    """
    sums = [
        math.fsum(share for (of, _), share in subject.known.items() if of == reading)
        for subject in found.subjects
    ]
    if max(sums) <= 1 + TOLERANCE:
        return ""
    return (
        f"the {found.statistics} of {reading} overlap (they sum to up to {max(sums):.2f}), and the terms "
        "that portraits are read as do not"
    )


def _decided_of(
    answers: Answers, errors: ClassErrors, owner: NDArray[np.str_], names: Iterable[str]
) -> dict[str, Answers]:
    """Return the decided answers of the subjects that have at least two."""
    decided = {name: answers[(owner == name) & (answers < len(errors.names))] for name in names}
    return {name: found for name, found in decided.items() if len(found) >= 2}


def ends_of_mean(share: float, stderr: float, n: int, dof: int) -> Interval:
    """Return the ends of the interval of a mean of shares, within 0..1 and never without the value.

    The wider of Student's, and Wilson's at the number of images, or at as many more as would have that
    standard error: images that are all alike still leave something open.
    """
    cut = min(max(share, 0.0), 1.0)
    effective = max(cut * (1 - cut) / stderr**2, n) if stderr > 0 else n
    usual, score = interval(share, stderr, dof=dof), proportions.wilson(cut, effective, dof=dof)
    low, high = min(usual.low, score.low), max(usual.high, score.high)
    return Interval(min(max(low, 0.0), share), max(min(high, 1.0), share))


def _favourites(
    seen: Seen, reading: str, chosen: Sequence[tuple[Subject, str, float]], found: Sitters
) -> list[Row]:
    """Return the mean share of each subject's own term, where every subject has another one."""
    rows = [_share_row(seen, subject, reading, term, share, found) for subject, term, share in chosen]
    unfit = next((row for row in rows if math.isnan(row.value)), None)
    if unfit is not None:
        return [replace(unfit, part="", metric=OWN_TERM)]
    values = np.array([row.value for row in rows])
    # The terms differ, so their errors rest on different identity images and are independent.
    stderr = float(np.sqrt(np.square([row.stderr for row in rows]).sum())) / len(rows)
    n = sum(row.n for row in rows)
    ends = ends_of_mean(float(values.mean()), stderr, n, max(n - len(rows), 1))
    terms = ", ".join(f"{subject.name}: {term}" for subject, term, _ in chosen)
    mean = float(np.mean([share for _, _, share in chosen]))
    return [
        Row(
            metric=OWN_TERM,
            value=float(values.mean()),
            stderr=stderr,
            low=ends.low,
            high=ends.high,
            n=n,
            direction="none",
            unit="share of portraits",
            component=seen.by,
            error=seen.readings[reading].errors.error,
            note=f"{terms}; {found.statistics}: {mean:.1%}",
        )
    ]
