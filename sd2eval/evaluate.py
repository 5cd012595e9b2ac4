"""Shards to scores and emission rows: everything a finished run says, computed without torch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sd2eval.energy import split
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, Metric, Reference, applicable, evaluate
from sd2eval.plan import Cell, cells, remaining
from sd2eval.precision import Finish
from sd2eval.provenance import plugins_in
from sd2eval.records import EmissionRow, EnergyReading, ImageRecord, RunInfo, Score
from sd2eval.store import WAY_OUT, RunFolder

FORMER_NAMES = {"distance": "reference.distance", "score_text": "texts.score"}
"""Arrays of `reference.npz` in runs of version 0.1."""
Counterparts = dict[str, dict[str, Any]]
"""By `Metric.against` and extractor: a `Reference`, or the captions' embeddings [n, d]."""


@dataclass(frozen=True, eq=False)
class Samples:
    """All shards of one checkpoint in prompt order, and what its metrics compare them with."""

    arrays: dict[str, NDArray[np.float32]]
    """[captions drawn, scales, ...] by the name that `Metric.array` gives; NaN where nothing was drawn."""
    valid: NDArray[np.bool_]
    """[n, scales]; also False where nothing was drawn."""
    digests: NDArray[np.str_]
    """[n, scales]; SHA-256 of each image's pixels, empty where nothing was drawn."""
    groups: NDArray[np.int64]
    """[n]; image id of each caption, captions of one image are not independent."""
    against: Counterparts
    """`counterparts` of the run."""

    def of(self, metric: Metric, column: int, rows: NDArray[Any]) -> tuple[NDArray[np.float32], Any]:
        """Return what `metric.estimate` takes, for some captions at one guidance scale.

        Args:
            metric: one of the checkpoint's planned metrics.
            column: position of the guidance scale in the run.
            rows: mask [n] or positions of captions, all of them valid at this scale.
        """
        other: Any = None
        if metric.against is not None:
            other = self.against[metric.against][str(metric.extractor)]
        if rows.dtype == np.bool_:  # arrays end with the last caption that was drawn
            rows = np.flatnonzero(rows)
        return self.arrays[metric.array][rows, column], other[rows] if metric.against == "texts" else other

    def drawn(self, column: int) -> int:
        """Return how many captions a scale has, or 0 where one before the last is missing."""
        there = self.digests[:, column] != ""
        count = int(there.sum())
        return count if there[:count].all() else 0


@dataclass(frozen=True, slots=True)
class Unscored:
    """A score that a finished cell does not have: too many of its images are invalid."""

    checkpoint: str
    guidance_scale: float
    metric: str
    n: int
    """Valid images."""
    needs: int
    """How many the metric takes at least."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One score, and how much each caption's image moved it."""

    score: Score
    effects: NDArray[np.float64]
    """[n], in prompt order: influence / images that entered, 0 for an invalid image."""
    groups: NDArray[np.int64]
    """[n]; image id of each caption."""


def checkpoint_names(info: RunInfo) -> list[str]:
    """Return the checkpoints of a run in their order."""
    return list(info.config["checkpoint_definitions"])


def planned_cells(info: RunInfo) -> list[Cell]:
    """Return all cells of a run."""
    return cells(checkpoint_names(info), info.config["guidance_scales"])


def planned_metrics(info: RunInfo, checkpoint: str) -> list[Metric]:
    """Return the protocol's metrics that a checkpoint's cells have, those that are known here."""
    known = [name for name in info.config["protocol"]["metrics"] if name in METRICS]
    return applicable(known, info.config["checkpoint_definitions"][checkpoint])


def unknown_metrics(info: RunInfo) -> list[str]:
    """Return the protocol's metrics that no installed package declares: a plug-in's that is gone."""
    return [name for name in info.config["protocol"]["metrics"] if name not in METRICS]


def unknown_line(info: RunInfo) -> str:
    """Return in one line which of a run's metrics are unknown here, and what to install; empty if none."""
    names = unknown_metrics(info)
    if not names:
        return ""
    made_with = ", ".join(map(str, plugins_in(info.versions)))
    return (
        f"no installed package declares {', '.join(names)}: in no table, what results.csv has of it stays"
        + (f"; the run was made with {made_with}" if made_with else "")
    )


def finish(store: RunFolder, info: RunInfo, checkpoint: str) -> Finish:
    """Return when the cells of a checkpoint are finished."""
    return Finish.of(info.config, len(store.read_prompts()), planned_metrics(info, checkpoint))


def complete(store: RunFolder, info: RunInfo, checkpoint: str) -> bool:
    """Whether every cell of a checkpoint is finished.

    Raises:
        InputError: a shard is damaged, or a metric is undefined on its features.
    """
    rule, blocks = finish(store, info, checkpoint), store.blocks(checkpoint)
    if len(rule.schedule) == 1:
        return not remaining(rule.schedule[0], blocks, 1)
    if not blocks or remaining(blocks[-1].last + 1, blocks, 1):  # a shard in the middle is not there
        return False
    return not open_scales(store, info, checkpoint, blocks[-1].last + 1)


def open_scales(store: RunFolder, info: RunInfo, checkpoint: str, n: int) -> dict[float, Mapping[str, float]]:
    """Return the guidance scales that go on after n captions, a look, and their standard errors there.

    Raises:
        InputError: a shard is damaged, or a metric is undefined on its features.
    """
    rule = finish(store, info, checkpoint)
    asked = [metric for metric in planned_metrics(info, checkpoint) if metric.name in rule.targets]
    samples = load_samples(store, info, checkpoint, counterparts(store))
    going: dict[float, Mapping[str, float]] = {}
    for column, scale in enumerate(info.config["guidance_scales"]):
        if samples.drawn(column) < n:
            continue  # it was finished at an earlier look
        rows = samples.valid[:, column] & (np.arange(len(samples.valid)) < n)
        errors = {metric.name: _stderr(metric, samples, column, rows) for metric in asked}
        if not rule.reached(n, errors):
            going[scale] = errors
    return going


def _stderr(metric: Metric, samples: Samples, column: int, rows: NDArray[np.bool_]) -> float:
    """Return a standard error; NaN, which is never precise enough, where too few images are valid."""
    if rows.sum() < metric.smallest:
        return float("nan")
    return evaluate(metric, *samples.of(metric, column, rows), samples.groups[rows]).stderr


def measure(store: RunFolder, info: RunInfo) -> list[Measured]:
    """Return the scores of every finished cell and what moved them; an unfinished one has no score.

    Raises:
        InputError: a shard is damaged, or a metric is undefined on its features.
    """
    return [one for one in _measure(store, info) if isinstance(one, Measured)]


def unscored(store: RunFolder, info: RunInfo, measured: Sequence[Measured]) -> list[Unscored]:
    """Return which scores finished cells lack; `measured` is what `measure` gave.

    Raises:
        InputError: a shard is damaged, or a metric is undefined on its features.
    """
    scales = len(info.config["guidance_scales"])
    planned = sum(len(planned_metrics(info, name)) for name in checkpoint_names(info)) * scales
    if len(measured) == planned or not any(image.invalid for image in image_records(store, info)):
        return []
    return [one for one in _measure(store, info) if isinstance(one, Unscored)]


def _measure(store: RunFolder, info: RunInfo) -> list[Measured | Unscored]:
    rows: list[Measured | Unscored] = []
    drawn = [name for name in checkpoint_names(info) if store.blocks(name)]
    against = counterparts(store) if drawn else {}  # a run that was stopped early has no reference either
    for name in drawn:
        rule, samples = finish(store, info, name), load_samples(store, info, name, against)
        for column, scale in enumerate(info.config["guidance_scales"]):
            n = samples.drawn(column)
            if n not in rule.schedule:
                continue
            cell = list(_measure_cell(info, Cell(name, scale), samples, column))
            nothing = dict.fromkeys(rule.targets, float("nan"))
            errors = {one.score.metric: one.score.stderr for one in cell if isinstance(one, Measured)}
            if rule.reached(n, nothing | errors):
                rows += cell
    return rows


def counterparts(store: RunFolder) -> Counterparts:
    """Return what the metrics of a run compare its images with.

    Raises:
        InputError: `reference.npz` is missing or damaged.
    """
    file = store.path / "reference.npz"
    try:
        arrays = store.read_arrays("reference")
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        what = f"damaged ({error})" if file.exists() else "missing"
        raise InputError(f"{file}: {what}; {WAY_OUT.format(store.path)}") from error
    found: Counterparts = {"reference": {}, "texts": {}}
    for name, array in arrays.items():
        what, _, slot = FORMER_NAMES.get(name, name).partition(".")
        found[what][slot] = Reference(array) if what == "reference" else array
    return found


def _measure_cell(info: RunInfo, cell: Cell, samples: Samples, column: int) -> Iterator[Measured | Unscored]:
    valid = samples.valid[:, column]
    for metric in planned_metrics(info, cell.checkpoint):
        if valid.sum() < metric.smallest:
            yield Unscored(
                cell.checkpoint, cell.guidance_scale, metric.name, int(valid.sum()), metric.smallest
            )
            continue
        found = evaluate(metric, *samples.of(metric, column, valid), samples.groups[valid])
        effects = np.zeros(len(valid))
        effects[valid] = found.influence / found.n
        score = Score(
            checkpoint=cell.checkpoint,
            guidance_scale=cell.guidance_scale,
            metric=metric.name,
            value=found.value,
            stderr=found.stderr,
            n=found.n,
            direction=metric.direction,
            unit=metric.unit,
            protocol=f"{info.config['protocol']['name']}@{info.digests['protocol'][:8]}",
        )
        yield Measured(score, effects, samples.groups)


def load_samples(store: RunFolder, info: RunInfo, checkpoint: str, against: Counterparts) -> Samples:
    """Return what was drawn of a checkpoint; `against` is `counterparts` of the run.

    Raises:
        InputError: a shard is damaged.
    """
    names = {metric.array for metric in planned_metrics(info, checkpoint)}
    groups = np.array([prompt["image_id"] for prompt in store.read_prompts()])
    scales, blocks = info.config["guidance_scales"], store.blocks(checkpoint)
    drawn = max((block.last + 1 for block in blocks), default=0)
    arrays: dict[str, NDArray[np.float32]] = {}
    valid = np.zeros((len(groups), len(scales)), dtype=np.bool_)
    digests = np.zeros((len(groups), len(scales)), dtype="<U64")
    for block in blocks:
        found, manifest = store.read_shard(checkpoint, block)
        if not names <= found.keys():
            missing = ", ".join(sorted(names - found.keys()))
            folder = f"{store.path}/shards/{checkpoint}/{block.key}"
            raise InputError(f"{folder}: has no {missing}; {WAY_OUT.format(store.path)}")
        columns = [scales.index(scale) for scale in manifest["guidance_scales"]]
        place = np.ix_(range(block.first, block.last + 1), columns)
        shape = (len(block), len(columns))
        valid[place] = np.reshape([not image["invalid"] for image in manifest["images"]], shape)
        digests[place] = np.reshape([image["sha256"] for image in manifest["images"]], shape)
        for name in names:
            if name not in arrays:
                tail = found[name].shape[2:]
                arrays[name] = np.full((drawn, len(scales), *tail), np.nan, dtype=np.float32)
            arrays[name][place] = found[name]
    return Samples(arrays, valid, digests, groups, against)


def image_records(store: RunFolder, info: RunInfo) -> Iterator[ImageRecord]:
    """Yield the records of all published images, checkpoint by checkpoint."""
    for name in checkpoint_names(info):
        for block in store.blocks(name):
            for image in store.read_manifest(name, block)["images"]:
                yield ImageRecord(**image)


def emissions(store: RunFolder, info: RunInfo) -> list[EmissionRow]:
    """Return the energy of every cell and stage and the setup row; together they are all that was measured.

    The scales of a checkpoint are sampled in one batch with equal work for each, so each gets an equal share
    of a shard's energy and of loading the checkpoint. Setup, reference and metrics belong to no cell.
    """
    scales = info.config["guidance_scales"]
    totals: dict[tuple[str, float | None, str, str, str], list[float]] = {}

    def add(checkpoint: str, reading: EnergyReading, grid: str, drawn: Sequence[float] = scales) -> None:
        owners: Sequence[float | None] = drawn if checkpoint else [None]
        for scale, part in split(reading, dict.fromkeys(owners, 1.0)).items():
            key = (checkpoint, scale, part.stage, part.method, grid)
            sums = totals.setdefault(key, [0.0, 0.0, 0.0])
            for index, value in enumerate((part.seconds, part.kwh, part.kg_co2)):
                sums[index] += value

    sessions = store.read_sessions()
    grid = sessions[-1]["grid"] if sessions else ""
    for session in sessions:
        for row in session["readings"]:
            add(row.pop("checkpoint"), EnergyReading(**row), session["grid"])
    for name in checkpoint_names(info):
        for block in store.blocks(name):
            manifest = store.read_manifest(name, block)
            for reading in manifest["energy"]:
                add(name, EnergyReading(**reading), grid, manifest["guidance_scales"])
    rows = [
        EmissionRow(
            checkpoint=checkpoint,
            guidance_scale=scale,
            stage=stage,
            seconds=seconds,
            kwh=kwh,
            kg_co2=kg_co2,
            method=method,
            grid=grid,
        )
        for (checkpoint, scale, stage, method, grid), (seconds, kwh, kg_co2) in totals.items()
    ]
    order = {name: position for position, name in enumerate(["", *checkpoint_names(info)])}
    return sorted(rows, key=lambda row: (order[row.checkpoint], row.guidance_scale or 0.0))
