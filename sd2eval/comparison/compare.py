"""Is B better than A, and how sure are we? Two runs, or two cells of one, paired by caption and noise.

The difference of a metric has one influence per caption (those of B minus those of A), so its standard error
knows what both sides share; captions of one image are one observation. Nothing is sampled or resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.comparison.differences import what_differs
from sd2eval.comparison.paired_cells import PairedCell, image_ids, paired_cells, shared_metrics
from sd2eval.comparison.pairing import Choice, Pair, Pairing, Side, open_side, pair, shares_noise
from sd2eval.comparison.result import (
    ALPHA,
    CORRECTIONS,
    ROUNDING,
    Comparison,
    RunComparison,
    Verdict,
)
from sd2eval.errors import InputError
from sd2eval.evaluate import unknown_line
from sd2eval.metrics import METRICS, Metric
from sd2eval.statistics import (
    average,
    benjamini_hochberg,
    detectable,
    difference,
    holm,
    interval,
    p_value,
    standard_error,
)
from sd2eval.words import one_of

_CORRECT = {"holm": holm, "fdr": benjamini_hochberg}
HEADLINE = ("distance", "score")
"""Kinds of metric that the sentence speaks about, the first of each that both runs have."""


def compare_runs(
    run_a: str | Path,
    run_b: str | Path | None = None,
    *,
    a: str = "",
    b: str = "",
    metrics: Sequence[str] = (),
    scales: Sequence[float] = (),
    common: bool = False,
    correction: str = "holm",
    on_cell: Callable[[str], object] = lambda _: None,
) -> RunComparison:
    """Compare two finished runs; `print(compare_runs("runs/a", "runs/b").sentence)`.

    Args:
        run_a: run folder.
        run_b: the other; None takes `run_a` for both sides, then `a` and `b` say what to compare.
        a: of run A: CHECKPOINT, @SCALE or CHECKPOINT@SCALE; empty takes what both runs have.
        b: the same of run B.
        metrics: names to compare, all of them then in the sentence; empty takes all that both have.
        scales: guidance scales to compare; empty takes all that both have.
        common: where one run has more captions, compare those that both have.
        correction: of the p-values for their number: `holm` or `fdr`.
        on_cell: called with the name of each pair of cells before it is computed.

    Raises:
        InputError: the runs do not pair (the message says why), or something given is wrong.
    """
    one_of(correction, CORRECTIONS, "correction")
    if run_b is None and not (a or b):
        raise InputError(
            "one run alone: give a second, or say what to compare in it, a=NAME b=NAME (or @SCALE)"
        )
    first, second = open_side("A", run_a), open_side("B", run_a if run_b is None else run_b)
    pairing = pair(first, second, (Choice.parse("a", a), Choice.parse("b", b)), scales, common=common)
    if run_b is None and any(left == right for left, right in pairing.cells):
        raise InputError("one run alone, and both sides are the same cells; choose others with a= and b=")
    chosen = _metrics(first, second, pairing, metrics)
    cells = list(paired_cells(first, second, pairing, chosen, on_cell))
    groups = image_ids(first, pairing)
    asked = set(metrics) or {metric.name for metric in _deciding(chosen)}
    rows, headline = compare_cells(cells, groups, asked, correction)
    return _assembled(first, second, pairing, cells, rows, headline, correction)


def compare_cells(
    cells: Sequence[PairedCell], images: NDArray[np.int64], asked: set[str], correction: str = "holm"
) -> tuple[list[Comparison], list[int]]:
    """Return the tested rows of some paired cells, and the positions of those that the sentence speaks about.

    Args:
        cells: every metric of every pair of cells.
        images: image id of each compared caption, shape [captions].
        asked: the metrics of the sentence; of each its widest average is taken.
        correction: key of `CORRECTIONS`.
    """
    return _corrected([_row(part, images) for part in _families(cells)], asked, correction)


def _metrics(a: Side, b: Side, pairing: Pairing, wanted: Sequence[str]) -> list[Metric]:
    """Return the metrics that some compared pair of checkpoints has on both sides, in the order of tables."""
    names = {metric.name for cells in pairing.cells for metric in shared_metrics(a, b, cells)}
    have = [name for name in METRICS if name in names]
    if not have:
        raise InputError("the runs do not pair, they have no metric in common (protocol.metrics)")
    for name in wanted:
        one_of(name, have, "shared metric")
    return [METRICS[name] for name in have if not wanted or name in wanted]


def _deciding(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the first distance and the first score; all metrics where there is neither."""
    found = [next((m for m in metrics if m.kind == kind), None) for kind in HEADLINE]
    return [metric for metric in found if metric is not None] or list(metrics)


def _families(cells: Sequence[PairedCell]) -> Iterator[list[PairedCell]]:
    """Yield what each row of the table averages over: by metric all cells, each checkpoint's, each cell."""
    for name in dict.fromkeys(cell.metric.name for cell in cells):
        own = [cell for cell in cells if cell.metric.name == name]
        by_checkpoint: dict[tuple[str, str], list[PairedCell]] = {}
        for cell in own:
            left, right = cell.pair
            by_checkpoint.setdefault((left.checkpoint, right.checkpoint), []).append(cell)
        if len(by_checkpoint) > 1:
            yield own
        for part in by_checkpoint.values():
            if len(part) > 1:
                yield part
            yield from ([cell] for cell in part)


def _row(cells: Sequence[PairedCell], images: NDArray[np.int64]) -> Comparison:
    """Return the comparison that averages over some cells, its p-value not yet corrected."""
    used = np.stack([cell.used for cell in cells])
    groups = images[used.any(axis=0)]
    independent = len(np.unique(groups))
    a, b = (average([getattr(cell, side) for cell in cells], used) for side in "ab")
    value, stderr = difference(b, a, groups)
    identical = all(cell.identical for cell in cells)
    if identical:  # equal images: what is left is the round-off of a network
        value, stderr = 0.0, 0.0
    low, high = interval(value, stderr, dof=independent - 1)
    p = p_value(value, stderr, independent - 1)
    verdict: Verdict = "open"
    if identical or (value == 0 and stderr == 0):
        verdict = "identical"
    elif max(abs(low), abs(high)) < ROUNDING * standard_error(a.influence, groups):
        verdict = "equal"
    metric = cells[0].metric
    return Comparison(
        checkpoint_a=_same([cell.pair[0].checkpoint for cell in cells], ""),
        checkpoint_b=_same([cell.pair[1].checkpoint for cell in cells], ""),
        scale_a=_same([cell.pair[0].guidance_scale for cell in cells], None),
        scale_b=_same([cell.pair[1].guidance_scale for cell in cells], None),
        metric=metric.name,
        a=a.value,
        b=b.value,
        difference=value,
        stderr=stderr,
        low=low,
        high=high,
        p=p,
        p_corrected=p,
        verdict=verdict,
        detectable=0.0,
        n=len(groups),
        images=independent,
        left_out=int((~used).sum()),
        cells=len(cells),
        direction=metric.direction,
        unit=metric.unit,
    )


def _same(values: Sequence[Any], otherwise: Any) -> Any:
    return values[0] if len(set(values)) == 1 else otherwise


def _corrected(
    rows: list[Comparison], asked: set[str], correction: str
) -> tuple[list[Comparison], list[int]]:
    """Return the rows with what depends on their number, and which of them the sentence speaks about.

    Half of the error rate belongs to the rows of the sentence, which were chosen before any number was seen,
    half to all others: the rate over both is kept, and the answer does not drown in the details.
    """
    first = {row.metric: index for index, row in reversed(list(enumerate(rows))) if row.metric in asked}
    headline = [first[name] for name in METRICS if name in first]
    others = [index for index in range(len(rows)) if index not in headline]
    families = [family for family in (headline, others) if family]
    result = list(rows)
    for family in families:
        corrected = _CORRECT[correction]([rows[index].p for index in family])
        for index, p in zip(family, corrected, strict=True):
            row, p_corrected = rows[index], min(float(p) * len(families), 1.0)
            result[index] = replace(
                row,
                p_corrected=p_corrected,
                verdict=_verdict(row, p_corrected),
                # By what the hardest of its family has to pass, so that it holds whatever the others are.
                detectable=detectable(row.stderr, row.images - 1, ALPHA / len(families) / len(family)),
            )
    return result, headline


def _verdict(row: Comparison, corrected: float) -> Verdict:
    if row.verdict in ("identical", "equal") or corrected >= ALPHA:
        return row.verdict
    return "better" if (row.difference > 0) == (row.direction == "higher") else "worse"


def _assembled(
    a: Side,
    b: Side,
    pairing: Pairing,
    cells: Sequence[PairedCell],
    rows: list[Comparison],
    headline: list[int],
    correction: str,
) -> RunComparison:
    by_pair = {cell.pair: cell for cell in cells}
    label_a, label_b = _labels(a, b, pairing.cells)
    unlike = list(_unlike_noise(a, b, pairing.cells))
    return RunComparison(
        a=str(a.store.path),
        b=str(b.store.path),
        label_a=label_a,
        label_b=label_b,
        paired_by="caption only" if unlike else "caption and noise",
        protocol=f"{a.info.config['protocol']['name']}@{a.info.digests['protocol'][:8]}",
        correction=correction,
        rows=rows,
        headline=[rows[index] for index in headline],
        identical_images=sum(cell.same for cell in by_pair.values()),
        image_pairs=sum(int(cell.used.sum()) for cell in by_pair.values()),
        differs=what_differs(a, b, pairing.cells),
        notes=[*unlike, *pairing.notes, *_left_out(by_pair.values()), *_unknown(a, b)],
    )


def _labels(a: Side, b: Side, cells: Sequence[Pair]) -> tuple[str, str]:
    """Return what tells the sides apart: checkpoints, else scales, else folders."""
    names = {(left.checkpoint, right.checkpoint) for left, right in cells}
    scales = {(left.guidance_scale, right.guidance_scale) for left, right in cells}
    ((left, right), *others), ((s, t), *_) = sorted(names), sorted(scales)
    if left != right and not others:
        return (left, right) if s == t else (f"{left} at {s:g}", f"{right} at {t:g}")
    if s != t:
        return f"guidance {s:g}", f"guidance {t:g}"
    here, there = a.store.path, b.store.path
    return (str(here), str(there)) if here.name == there.name else (here.name, there.name)


def _unlike_noise(a: Side, b: Side, cells: Sequence[Pair]) -> Iterator[str]:
    """Yield a line on each pair of checkpoints whose images do not come from the same noise."""
    for left, right in dict.fromkeys((left.checkpoint, right.checkpoint) for left, right in cells):
        here, there = a.definition(left), b.definition(right)
        if not shares_noise(here, there):
            yield (
                f"{left} and {right} are paired by caption only: latents of another size share no noise "
                f"({_drawn(here)} in A, {_drawn(there)} in B)"
            )


def _unknown(a: Side, b: Side) -> Iterator[str]:
    """Yield a line on each run with metrics that are unknown here."""
    for side in (a, b):
        line = unknown_line(side.info)
        if line:
            yield f"not compared, {side.letter}: {line}"


def _drawn(definition: dict[str, Any]) -> str:
    kind = ", upscaling" if definition.get("conditioning") == "upscaling" else ""
    return f"{definition['resolution']} pixels{kind}"


def _left_out(cells: Iterable[PairedCell]) -> Iterator[str]:
    invalid = sum(int((~cell.used).sum()) for cell in cells)
    if invalid:
        yield f"{invalid} pairs of images are left out because one of the two is invalid or was not drawn"
