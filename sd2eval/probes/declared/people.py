"""Are people worse than the rest? Captions whose image shows a person against those whose image shows none.

Distance to real images of the same kind, agreement with the caption, whether anybody is there, with how many
of 17 points, and with a face. The detectors' errors are measured on the data set's own images, where it is
marked what is there. In the mini world a category of objects stands in the role of people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sd2eval.config import CheckpointConfig
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.reference import Reference
from sd2eval.probes import captions, slices
from sd2eval.probes.base import (
    Answer,
    Bench,
    Box,
    Images,
    Probe,
    ProbePrompt,
    PromptSet,
    Row,
    Tile,
    Unavailable,
    label,
)
from sd2eval.probes.measured_rates import degrees, difference_row, points, told
from sd2eval.probes.named_metrics import of_role, possible
from sd2eval.probes.person_rates import OTHERS, Side, face_rows, point_rows, presence_rows
from sd2eval.statistics import Estimate, interval, standard_error


def prompts(bench: Bench) -> PromptSet:
    """Return captions of the data set."""
    return captions.of_data_set(bench, int(bench.settings["n"]))


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Draw the captions and compare the two kinds."""
    metrics = {role: of_role(bench, "people", role) for role in ("distance", "score")}
    shown = slices.categories(bench.annotations("instances"), "category")
    asked = prompts(bench).prompts
    _kinds(bench, asked, shown)  # what can never be enough is not drawn
    drawn = bench.draw(checkpoint, asked)
    kept = [i for i, valid in enumerate(drawn.valid) if valid]
    sides = _sides(bench, [asked[i] for i in kept], drawn.images[kept], shown)
    rows = [*_distances(bench, sides, metrics["distance"]), *_agreements(bench, sides, metrics["score"])]
    boxes: dict[int, tuple[Box, ...]] = {}
    for rows_of in (presence_rows, point_rows, face_rows):
        rows += rows_of(bench, sides, boxes)
    return Answer(rows=rows, sentences=_sentences(rows, sides), tiles=_tiles(sides, boxes))


def _kinds(
    bench: Bench, asked: Sequence[ProbePrompt], shown: Mapping[str, Sequence[str]]
) -> dict[str, tuple[list[int], list[int]]]:
    """Return captions with and without the category, and real images of either kind in random order, by rows.

    Raises:
        Unavailable: there is no such category, or fewer than `smallest` of either kind.
    """
    category, smallest = str(bench.settings["category"]), int(bench.settings["smallest"])
    known = sorted({name for names in shown.values() for name in names})
    if category not in known:
        raise Unavailable(
            f"settings.people.category={category}: no image shows one; allowed: {', '.join(known)}"
        )
    files = [file.name for file in bench.dataset.reference]
    order = np.random.default_rng(0).permutation(len(files))
    found = {}
    for part, wanted in ((category, True), (OTHERS, False)):
        chosen = [i for i, one in enumerate(asked) if (category in shown.get(one.image_file, ())) == wanted]
        real = [row for row in order if (category in shown.get(files[row], ())) == wanted]
        if min(len(chosen), len(real)) < smallest:
            more = len(real) >= smallest and len(asked) == int(bench.settings["n"])
            raise Unavailable(
                f"{len(chosen)} captions and {len(real)} real images of '{part}'; at least {smallest} of "
                f"each are needed: {'raise settings.people.n, or ' * more}lower settings.people.smallest"
            )
        found[part] = chosen, real
    return found


def _sides(
    bench: Bench, asked: Sequence[ProbePrompt], images: Images, shown: Mapping[str, Sequence[str]]
) -> tuple[Side, Side]:
    """Return what was drawn for captions with the category and for those without it."""
    first, second = (
        Side(part=part, prompts=[asked[i] for i in chosen], images=images[chosen], real=np.array(real))
        for part, (chosen, real) in _kinds(bench, asked, shown).items()
    )
    return first, second


def _distances(bench: Bench, sides: tuple[Side, Side], metric: Metric) -> list[Row]:
    """Return the distance of either kind, at equal numbers of images, and the difference."""
    n = min(len(side.prompts) for side in sides)
    m = min(len(side.real) for side in sides)
    real = np.asarray(bench.reference_features("distance"), dtype=np.float64)
    found = []
    for side in sides:
        generated = np.asarray(bench.features("distance", side.images), dtype=np.float64)[:n]
        found.append((side.part, metric.estimate(generated, Reference(real[side.real[:m]])), side.groups[:n]))
    note = f"{n} generated and {m} real images of either kind; biased upward at small n"
    return _pair_rows(metric, found, label(bench.extractor("distance")), note)


def _agreements(bench: Bench, sides: tuple[Side, Side], metric: Metric) -> list[Row]:
    """Return the mean cosine of image and caption of either kind, and the difference."""
    found = []
    for side in sides:
        texts = bench.texts("score", [one.text for one in side.prompts])
        found.append((side.part, metric.estimate(bench.features("score", side.images), texts), side.groups))
    return _pair_rows(metric, found, label(bench.extractor("score")), "")


def _pair_rows(
    metric: Metric, found: Sequence[tuple[str, Estimate, list[int]]], by: str, note: str
) -> list[Row]:
    """Return a row of either kind and one of the difference, first less second; the kinds share no image."""
    rows = []
    for part, estimate, groups in found:
        stderr = standard_error(estimate.influence, groups)
        low, high = possible(metric, *interval(estimate.value, stderr, dof=len(set(groups)) - 1))
        rows.append(
            Row(
                part=part,
                metric=metric.name,
                value=estimate.value,
                stderr=stderr,
                low=low,
                high=high,
                n=estimate.n,
                direction=metric.direction,
                unit=metric.unit,
                component=by,
                note=note,
            )
        )
    first, second = rows
    counts = [len(set(groups)) for _, _, groups in found]
    return [*rows, difference_row(first, second, dof=degrees((first.stderr, second.stderr), counts))]


def _tiles(sides: tuple[Side, Side], boxes: Mapping[int, tuple[Box, ...]]) -> list[Tile]:
    """Return tiles of both kinds, half of the first two dozen each."""
    tiles = []
    for side in sides:
        for prompt, image in list(zip(side.prompts, side.images, strict=True))[:12]:
            found = boxes.get(prompt.key, ())
            names = [one.label for one in found]
            told_of = (
                ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing found"
            )
            good = bool(found) if side.part != OTHERS else None
            tiles.append(
                Tile(image=image, text=prompt.text, found=f"{side.part}: {told_of}", good=good, boxes=found)
            )
    return tiles


def _sentences(rows: Sequence[Row], sides: tuple[Side, Side]) -> list[str]:
    by = {(row.metric, row.part): row for row in rows}
    part = sides[0].part
    distance, score = rows[0], next(row for row in rows[1:] if row.metric != rows[0].metric)
    said = [
        f"Images for captions of '{part}' are {told(distance, percent=False)} from real ones "
        f"({distance.metric}), others {told(by[distance.metric, OTHERS], percent=False)}; the difference is "
        f"{told(by[distance.metric, f'{part} - {OTHERS}'], percent=False)}.",
        f"Agreement with the caption ({score.metric}): {told(score, percent=False)} against "
        f"{told(by[score.metric, OTHERS], percent=False)}.",
    ]
    there = by.get(("detection_rate", part))
    if there and not math.isnan(there.value):
        said.append(f"Of images that should show a {part}, {told(there)} do.")
    face, real = by.get(("face_rate", part)), by.get(("face_rate", f"{part}, real"))
    if face and real and not math.isnan(face.value):
        said.append(
            f"A face is there in {told(face)}; in the real images of the same captions in {told(real)}."
        )
    more = by.get(("keypoint_completeness", f"{part}, generated - real"))
    if more:
        said.append(
            f"Share of a person's 17 points that are seen, generated less real images: {points(more)}."
        )
    said += [row.note for row in rows if row.n == 0]
    return said


PROBE = Probe(
    name="people",
    sentence="Faces and people in general may not be generated properly",
    question="Are images of people farther from real ones than others, and is anybody, with a face, in them?",
    prompts=prompts,
    measure=measure,
)
