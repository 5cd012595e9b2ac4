"""The metrics of two matched cells, on the captions whose images are valid on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sd2eval import evaluate
from sd2eval.comparison.pairing import Pair, Pairing, Side
from sd2eval.errors import InputError
from sd2eval.evaluate import Samples
from sd2eval.metrics import Metric
from sd2eval.statistics import Estimate


@dataclass(frozen=True, eq=False)
class PairedCell:
    """One metric in one pair of cells, on the images that are valid on both sides."""

    pair: Pair
    metric: Metric
    a: Estimate
    b: Estimate
    used: NDArray[np.bool_]
    """Shape [captions]; which of the compared captions entered."""
    same: int
    """Pairs of images that are equal, bit for bit."""

    @property
    def identical(self) -> bool:
        """Whether all of them are."""
        return bool(self.same == self.used.sum())


def shared_metrics(a: Side, b: Side, cells: Pair) -> list[Metric]:
    """Return the metrics that both cells have, in the order of A's protocol."""
    here = evaluate.planned_metrics(a.info, cells[0].checkpoint)
    there = {metric.name for metric in evaluate.planned_metrics(b.info, cells[1].checkpoint)}
    return [metric for metric in here if metric.name in there]


def paired_cells(
    a: Side, b: Side, pairing: Pairing, metrics: Sequence[Metric], on_cell: Callable[[str], object]
) -> Iterator[PairedCell]:
    """Yield every metric of every pair of cells.

    Args:
        a: the first run.
        b: the second.
        pairing: cells and captions.
        metrics: those wanted; a pair of cells yields what both have of them.
        on_cell: called with the name of a pair of cells before it is computed.

    Raises:
        InputError: a shard is damaged, a metric is undefined, or fewer than 2 pairs of images are valid.
    """
    names = {metric.name for metric in metrics}
    against = evaluate.counterparts(a.store), evaluate.counterparts(b.store)
    rows = _positions(a, pairing), _positions(b, pairing)
    loaded: tuple[tuple[str, str], tuple[Samples, Samples]] | None = None
    for cells in pairing.cells:
        key = cells[0].checkpoint, cells[1].checkpoint
        if loaded is None or loaded[0] != key:
            loaded = (
                key,
                (
                    evaluate.load_samples(a.store, a.info, key[0], against[0]),
                    evaluate.load_samples(b.store, b.info, key[1], against[1]),
                ),
            )
        on_cell(f"{cells[0].key} and {cells[1].key}")
        shared = [metric for metric in shared_metrics(a, b, cells) if metric.name in names]
        columns = a.scales.index(cells[0].guidance_scale), b.scales.index(cells[1].guidance_scale)
        yield from _paired_cell(cells, shared, loaded[1], columns, rows)


def _paired_cell(
    cells: Pair,
    metrics: Sequence[Metric],
    samples: tuple[Samples, Samples],
    columns: tuple[int, int],
    rows: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> Iterator[PairedCell]:
    sides = list(zip(samples, columns, rows, strict=True))
    valid = [side.valid[row, column] for side, column, row in sides]
    used = valid[0] & valid[1]
    digests = [side.digests[row, column][used] for side, column, row in sides]
    same = int((digests[0] == digests[1]).sum())
    if used.sum() < 2:
        raise InputError(
            f"{cells[0].key} and {cells[1].key}: fewer than 2 captions have a valid image on both sides"
        )
    for metric in metrics:
        a, b = (metric.estimate(*side.of(metric, column, row[used])) for side, column, row in sides)
        yield PairedCell(cells, metric, a, b, used, same)


def _positions(side: Side, pairing: Pairing) -> NDArray[np.intp]:
    """Return where the compared captions stand in a run's arrays."""
    places = {prompt["caption_id"]: position for position, prompt in enumerate(side.prompts)}
    return np.array([places[caption] for caption in pairing.captions], dtype=np.intp)


def image_ids(side: Side, pairing: Pairing) -> NDArray[np.int64]:
    """Return the image of each compared caption, [captions]: captions of one image are not independent."""
    images = {prompt["caption_id"]: prompt["image_id"] for prompt in side.prompts}
    return np.array([images[caption] for caption in pairing.captions], dtype=np.int64)
