"""Does it look real? Distances between generated and real images, by what the caption's image shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import CheckpointConfig
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.neighbours import PRECISION_K, neighbour_reference
from sd2eval.metrics.reference import Reference
from sd2eval.probes import captions, proportions, slices
from sd2eval.probes.base import Answer, Bench, Probe, ProbePrompt, PromptSet, Row, Tile, label
from sd2eval.probes.measured_rates import told, unsure
from sd2eval.probes.named_metrics import of_role, possible
from sd2eval.statistics import interval, standard_error

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
SHEET = 12
"""Tiles from either end."""


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Generated and real images of one slice."""

    part: str
    generated: Array
    """[n, d]"""
    real: Array
    """[m, d]"""
    images: Indices
    """Image id of each generated one, [n]: standard errors are clustered by it."""
    far: Array
    """Distance of each generated image to its nearest real one, over the median among real ones, [n]."""

    def first(self, n: int, m: int) -> Sides:
        """Return the first n generated and m real images, which were drawn in random order."""
        return Sides(self.part, self.generated[:n], self.real[:m], self.images[:n], self.far[:n])


def prompts(bench: Bench) -> PromptSet:
    """Return captions of the data set."""
    return captions.of_data_set(bench, int(bench.settings["n"]))


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Draw the captions and compare them with the real images, as a whole and by category."""
    metrics = {role: of_role(bench, "photorealism", role) for role in ("distance", "kernel", "precision")}
    shown = slices.categories(bench.annotations("instances"), str(bench.settings["level"]))
    asked = prompts(bench).prompts
    drawn = bench.draw(checkpoint, asked)
    kept = [one for one, valid in zip(asked, drawn.valid, strict=True) if valid]
    images = drawn.images[drawn.valid]
    bench.progress("comparing with the real images")
    generated = np.asarray(bench.features("distance", images), dtype=np.float64)
    real = np.asarray(bench.reference_features("distance"), dtype=np.float64)
    whole = _whole(kept, generated, real, [file.name for file in bench.dataset.reference])
    real_shown = [shown.get(file.name, ()) for file in bench.dataset.reference]
    parts = _slices(whole, slices.members([shown.get(one.image_file, ()) for one in kept]), real_shown)
    rows = _rows(
        [whole, *parts], metrics, int(bench.settings["smallest"]), label(bench.extractor("distance"))
    )
    among = slices.inside(generated, neighbour_reference(real, PRECISION_K))
    tiles = _tiles(kept, images, whole.far, among)
    return Answer(rows=rows, sentences=_sentences(rows), tiles=tiles)


def _whole(kept: Sequence[ProbePrompt], generated: Array, real: Array, files: Sequence[str]) -> Sides:
    rows = {name: row for row, name in enumerate(files)}
    own = np.array([rows.get(one.image_file, -1) for one in kept])
    unit = float(np.median(slices.among_real(real)))
    far = slices.nearest_real(generated, real, own) / unit
    # Files lie in the order of their names; slices take the first ones, so they are shuffled once.
    order = np.random.default_rng(0).permutation(len(real))
    return Sides("", generated, real[order], np.array([one.group for one in kept]), far)


def _slices(whole: Sides, members: Mapping[str, Indices], real_shown: Sequence[Sequence[str]]) -> list[Sides]:
    order = np.random.default_rng(0).permutation(len(real_shown))
    of_real = slices.members([real_shown[row] for row in order])
    return [
        Sides(
            name,
            whole.generated[there],
            whole.real[of_real.get(name, np.empty(0, dtype=np.intp))],
            whole.images[there],
            whole.far[there],
        )
        for name, there in members.items()
    ]


def _rows(sides: Sequence[Sides], metrics: Mapping[str, Metric], smallest: int, by: str) -> list[Row]:
    """Return the rows of each slice; slices are cut to equal numbers where the numbers move the value."""
    enough = [one for one in sides[1:] if min(len(one.images), len(one.real)) >= smallest]
    n = min((len(one.images) for one in enough), default=len(sides[0].images))
    m = min((len(one.real) for one in enough), default=len(sides[0].real))
    rows: list[Row] = []
    for one in sides:
        have = min(len(one.images), len(one.real))
        if have < (smallest if one.part else 2):
            rows += [_too_small(one, metric, smallest, by) for metric in metrics.values()]
            continue
        equal = one.first(n, m)
        note = f"n = {len(equal.images)} and {len(equal.real)} real in every slice; biased upward at small n"
        rows.append(_estimate(metrics["distance"], equal, note, by))
        rows.append(_estimate(metrics["kernel"], one, f"{len(one.real)} real; unbiased at any n", by))
        rows.append(_precision(metrics["precision"], one, one.first(n, m).real, by))
        rows.append(_nearest(one, by))
    return rows


def _too_small(one: Sides, metric: Metric, smallest: int, by: str) -> Row:
    note = f"{len(one.images)} images and {len(one.real)} real ones; a slice needs {smallest} of each"
    return Row(
        part=one.part,
        metric=metric.name,
        value=math.nan,
        n=len(one.images),
        direction=metric.direction,
        unit=metric.unit,
        component=by,
        note=note,
    )


def _estimate(metric: Metric, one: Sides, note: str, by: str) -> Row:
    found = metric.estimate(one.generated, Reference(one.real))
    stderr = standard_error(found.influence, one.images)
    low, high = possible(metric, *interval(found.value, stderr, dof=len(np.unique(one.images)) - 1))
    return Row(
        part=one.part,
        metric=metric.name,
        value=found.value,
        stderr=stderr,
        low=low,
        high=high,
        n=found.n,
        direction=metric.direction,
        unit=metric.unit,
        component=by,
        note=note,
    )


def _precision(metric: Metric, one: Sides, real: Array, by: str) -> Row:
    """Return the share of images among real ones; the interval is that of a rate, which holds near 1."""
    share = proportions.rate(slices.inside(one.generated, neighbour_reference(real, PRECISION_K)), one.images)
    yardstick = float(slices.inside_others(real).mean())
    return Row(
        part=one.part,
        metric=metric.name,
        value=share.value,
        stderr=share.stderr,
        low=share.low,
        high=share.high,
        n=share.n,
        direction=metric.direction,
        unit=metric.unit,
        component=by,
        note=f"{len(real)} real; of these, {yardstick:.1%} lie among the others",
    )


def _nearest(one: Sides, by: str) -> Row:
    found = slices.median(one.far)
    return Row(
        part=one.part,
        metric="nearest_real_distance",
        value=found.value,
        stderr=found.stderr,
        low=found.low,
        high=found.high,
        n=found.n,
        direction="lower",
        unit="times the median among real images",
        component=by,
        note="the caption's own image left out; 1: as near as real images are to each other",
    )


def _tiles(kept: Sequence[ProbePrompt], images: Any, far: Array, among: NDArray[np.bool_]) -> list[Tile]:
    """Return the nearest and the farthest images."""
    order = np.argsort(far)
    ends = [*order[:SHEET], *order[max(len(order) - SHEET, SHEET) :]]
    return [
        Tile(
            image=images[row],
            text=kept[row].text,
            found=f"nearest real: x{far[row]:.2f}" + ("" if among[row] else ", not among real ones"),
            good=bool(among[row]),
        )
        for row in ends
    ]


def _sentences(rows: Sequence[Row]) -> list[str]:
    by = {(row.part, row.metric): row for row in rows}
    precision = next(row for row in rows if row.part == "" and row.direction == "higher")
    near = by["", "nearest_real_distance"]
    said = [
        f"Of {precision.n} generated images {told(precision)} lie among the real ones ({precision.note}).",
        f"Half of them are farther than {told(near, percent=False)} times the distance at which real images "
        "lie from each other.",
    ]
    parts = [row for row in rows if row.part and row.unit == rows[0].unit and row.metric == rows[0].metric]
    given = sorted((row for row in parts if not math.isnan(row.value)), key=lambda row: row.value)
    if len(given) > 1:
        best, worst = given[0], given[-1]
        ends = [told(one, percent=False) for one in (best, worst)]
        if overlap := unsure(best, worst):
            told_of = f"lies between {ends[0]} ('{best.part}') and {ends[1]} ('{worst.part}'){overlap}"
        else:
            told_of = f"is lowest for '{best.part}' ({ends[0]}) and highest for '{worst.part}' ({ends[1]})"
        said.append(f"At {best.n} images each, {best.metric} {told_of}.")
    refused = [row.part for row in parts if math.isnan(row.value)]
    if refused:
        said.append(f"Too few images to say anything: {', '.join(refused)}.")
    return said


PROBE = Probe(
    name="photorealism",
    sentence="The model does not achieve perfect photorealism",
    question="How far are its images from real ones, and from which kinds of them?",
    prompts=prompts,
    measure=measure,
)
