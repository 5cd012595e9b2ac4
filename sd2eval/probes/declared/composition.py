"""Things, numbers, colours and places: GenEval's six tasks, grids of them, and the card's own sentence.

The mini family is judged by the world's analytic detector, tested on rendered scenes that went through the
checkpoint's own autoencoder, because generated ones are as soft as that. Published checkpoints are judged by
Mask R-CNN and CLIP's colours; what Mask R-CNN misses is measured on real photographs with COCO's marks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import CheckpointConfig
from sd2eval.probes import mini_tasks
from sd2eval.probes.base import Answer, Bench, Box, Probe, ProbePrompt, PromptSet, Row, Tile, label
from sd2eval.probes.card_sentence import CARD, card_by_clip
from sd2eval.probes.composing import TASKS, Verdict, judge, needed, wanted_of
from sd2eval.probes.composition_tests import mini_errors, photo_errors, threshold
from sd2eval.probes.measured_rates import enough, mean_row, rate_row, told
from sd2eval.probes.prompt_sets import load_prompts, made
from sd2eval.probes.proportions import Confusion
from sd2eval.probes.sightings import Found

CHUNK = 8
"""Images whose masks are in memory at a time."""
GRIDS = (("color", "first_colour"), ("relation", "relation"), ("count", "count"))
"""Grids of partial credit: name, and the label by which they are cut."""
OF_GRID = {"color": ("colors", "color_attr"), "relation": ("position",), "count": ("counting",)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """One picture with what was found in it."""

    prompt: ProbePrompt
    verdict: Verdict
    boxes: tuple[Box, ...]
    image: NDArray[np.uint8] = field(repr=False)

    @property
    def part(self) -> str:
        """What its row is called."""
        return self.prompt.labels["part"]


def prompts(bench: Bench) -> PromptSet:
    """Return the mini world's sentences, or the first `n` of each part of the file."""
    settings = bench.settings
    if bench.family == "mini":
        asked = mini_tasks.sentences(int(settings["n"]), int(settings["rare"]), int(settings["card"]))
        source = "made from the world's own words"
        return made("composition of the mini world", source, "CC0-1.0", _by_sentence(asked))
    found = load_prompts(str(settings["prompts"]))
    kept, taken = [], dict.fromkeys((one.labels.get("part", "") for one in found.prompts), 0)
    for one in found.prompts:
        wanted_of(one.labels)
        part = one.labels.get("part", "")
        taken[part] += 1
        if taken[part] <= int(settings["n"]):
            kept.append(one)
    return made(found.name, found.source, found.licence, _by_sentence(kept), found.digest)


def _by_sentence(asked: Sequence[ProbePrompt]) -> list[ProbePrompt]:
    """Return prompts of which those with the same text are of the same group."""
    groups: dict[str, int] = {}
    return [replace(one, group=groups.setdefault(one.text, one.group)) for one in asked]


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Draw the sentences, find the objects, judge each picture, and test the detector."""
    asked = prompts(bench).prompts
    drawn = bench.draw(checkpoint, asked)
    valid = [i for i, good in enumerate(drawn.valid) if good]
    pictures = [(asked[i], drawn.images[i]) for i in valid]
    judged = [one for one in _judged(bench, pictures) if one.part != CARD or bench.family == "mini"]
    bench.progress("testing the detector")
    errors = mini_errors(bench, checkpoint, asked) if bench.family == "mini" else photo_errors(bench)
    rows = _rows(bench, judged, errors)
    tiles = [_tile(one) for one in judged]
    if bench.family != "mini":
        card = [(prompt, image) for prompt, image in pictures if prompt.labels["part"] == CARD]
        row, more = card_by_clip(bench, card)
        rows, tiles = [*rows, *row], [*tiles, *more]
    different = Counter(part for part, _ in {(one.part, one.prompt.text) for one in judged})
    return Answer(rows=rows, sentences=_sentences(rows, different), tiles=_spread(tiles))


def _judged(bench: Bench, pictures: Sequence[tuple[ProbePrompt, NDArray[np.uint8]]]) -> list[Judged]:
    """Return verdicts; masks are thrown away after each few pictures."""
    detector = bench.component("detector")
    done: list[Judged] = []
    for start in range(0, len(pictures), CHUNK):
        bench.progress(f"looking at pictures: {start} of {len(pictures)}")
        chunk = pictures[start : start + CHUNK]
        seen = detector.detect(np.stack([image for _, image in chunk]))
        for (prompt, image), found in zip(chunk, seen, strict=True):
            done.append(_judge(bench, prompt, image, found))
    return done


def _judge(bench: Bench, prompt: ProbePrompt, image: NDArray[np.uint8], found: Sequence[Found]) -> Judged:
    wanted, least = wanted_of(prompt.labels), threshold(bench.settings, prompt.labels["task"])
    if any(thing.colour for thing in wanted.things) and bench.family != "mini":
        found = coloured(bench.component("colours"), image, found, needed(wanted, found, least))
    shown = tuple(_box(one) for one in found if one.score > least)
    return Judged(prompt=prompt, verdict=judge(wanted, found, least), boxes=shown, image=image)


def coloured(
    colours: Any, image: NDArray[np.uint8], found: Sequence[Found], chosen: Sequence[Found]
) -> list[Found]:
    """Return what was found, with the colours of the chosen objects."""
    named = {id(one): name for one, name in zip(chosen, colours.colours_of(image, chosen), strict=True)}
    return [replace(one, colour=named.get(id(one), "")) for one in found]


def _rows(bench: Bench, judged: Sequence[Judged], errors: Mapping[str, Confusion]) -> list[Row]:
    detector, limit = bench.component("detector"), float(bench.settings["limit"])
    rows = []
    for part in dict.fromkeys(one.part for one in judged):
        some = [one for one in judged if one.part == part]
        groups = _groups(some)
        if not enough(groups):
            continue
        rows.append(
            rate_row(
                "correct_rate",
                [one.verdict.correct for one in some],
                groups,
                part=part,
                component=detector,
                errors=errors.get(part),
                limit=limit,
                note="; ".join(
                    filter(None, (_rests_on(some), _commonest([one.verdict.reason for one in some])))
                ),
            )
        )
    tasks = [row for row in rows if row.part in TASKS]
    score = [overall(tasks, label(detector))] if len(tasks) == len(TASKS) else []
    return [*score, *rows, *_grids(judged, errors, detector, limit)]


def _groups(some: Sequence[Judged]) -> list[int]:
    """Return what belongs together: pictures of one sentence, unless the question is about that one alone."""
    groups = [one.prompt.group for one in some]
    return groups if len(set(groups)) > 1 else [one.prompt.key for one in some]


def _rests_on(some: Sequence[Judged]) -> str:
    """Return of how many sentences pictures are; empty where each is of its own."""
    count = len({one.prompt.text for one in some})
    if count == len(some):
        return ""
    return f"{len(some)} pictures of " + (
        f"{count} sentences" if count > 1 else "one sentence, and of no other"
    )


def overall(tasks: Sequence[Row], component: str) -> Row:
    """Return GenEval's score, the unweighted mean of the six tasks."""
    values = [row.value for row in tasks]
    mean = float(np.mean(values))
    stderr = math.sqrt(sum(row.stderr**2 for row in tasks)) / len(tasks)
    reach = NormalDist().inv_cdf(0.975) * stderr
    # A task without any success has no spread of its own, but its interval has a width.
    widths = [max(row.value - row.low, row.high - row.value) for row in tasks]
    reach = max(reach, math.sqrt(sum(width**2 for width in widths)) / len(tasks))
    missing = [row.part for row in tasks if math.isnan(row.value)]
    return Row(
        metric="geneval_score",
        value=mean,
        stderr=stderr,
        low=max(mean - reach, 0.0),
        high=min(mean + reach, 1.0),
        n=sum(row.n for row in tasks),
        direction="higher",
        unit="mean of six rates",
        component=component,
        error=float(np.mean([row.error for row in tasks])),
        note=f"no number for {', '.join(missing)}" if missing else "each task counts alike",
    )


def _grids(
    judged: Sequence[Judged], errors: Mapping[str, Confusion], detector: Any, limit: float
) -> list[Row]:
    """Return mean partial credit by colour, relation and number."""
    rows = []
    for grid, key in GRIDS:
        for value in sorted({one.prompt.labels[key] for one in judged if _in_grid(one, grid, key)}):
            some = [one for one in judged if _in_grid(one, grid, key) and one.prompt.labels[key] == value]
            groups = _groups(some)
            if not enough(groups):
                continue
            known = [errors[one.part].error for one in some if one.part in errors]
            rows.append(
                mean_row(
                    "partial_credit",
                    [one.verdict.credit for one in some],
                    groups,
                    part=f"{grid}: {value}",
                    component=detector,
                    error=float(np.mean(known)) if known else math.nan,
                    unit="0..1",
                    limit=limit,
                    bounds=(0.0, 1.0),
                    note="not corrected",
                )
            )
    return rows


def _in_grid(one: Judged, grid: str, key: str) -> bool:
    return one.part in OF_GRID[grid] and bool(one.prompt.labels.get(key))


def _commonest(reasons: Sequence[str]) -> str:
    """Return the commonest fault in words; empty where there is none."""
    faults = [reason for reason in reasons if reason]
    if not faults:
        return ""
    kinds = [_kind(reason) for reason in faults]
    best = max(dict.fromkeys(kinds), key=kinds.count)
    return f"{len(faults)} of {len(reasons)} wrong, most because of {best} ({kinds.count(best)})"


def _kind(reason: str) -> str:
    if reason.startswith("no "):
        return "a thing that is not there"
    if (" of " in reason and reason[0].isdigit()) or "instead of" in reason:
        return "the number"
    return (
        "the place" if any(word in reason for word in ("left", "right", "above", "below")) else "the colour"
    )


def _box(found: Found) -> Box:
    left, top, right, bottom = found.box
    name = " ".join(filter(None, (found.colour, found.label)))
    return Box(left=left, top=top, right=right, bottom=bottom, label=name)


def _tile(one: Judged) -> Tile:
    found = one.verdict.reason or "right"
    return Tile(image=one.image, text=one.prompt.text, found=found, good=one.verdict.correct, boxes=one.boxes)


def _spread(tiles: Sequence[Tile]) -> list[Tile]:
    """Put tiles so that the first two dozen show every part, from the first to the last."""
    first = dict.fromkeys(np.linspace(0, len(tiles) - 1, 24).round().astype(int).tolist())
    return [tiles[i] for i in (*first, *(i for i in range(len(tiles)) if i not in first))]


def _sentences(rows: Sequence[Row], different: Mapping[str, int]) -> list[str]:
    by = {row.part: row for row in rows if row.metric == "correct_rate"}
    said = [
        f"GenEval's score, the mean of its six tasks: {told(row)}."
        for row in rows
        if row.metric == "geneval_score"
    ]
    said.append("By task: " + "; ".join(f"{part} {told(by[part])}" for part in TASKS if part in by) + ".")
    if CARD in by:
        said.append(f'"{mini_tasks.CARD}": {told(by[CARD])} of {by[CARD].n} pictures are right.')
    rare = [part for part in by if part.endswith("never seen")]
    for part in rare:
        seen = part.replace("never seen", "seen")
        beside = by.get(seen) or by.get(part.split(",")[0])
        against = f", against {told(beside)} of comparable ones that it did hold" if beside else ""
        if beside and math.isnan(beside.value):
            against = "; of comparable ones that it did hold there is no number to compare with"
        said.append(
            f"Combinations that training never held ({part.split(',')[0]}), {different[part]} sentences with "
            f"{by[part].n} pictures in all: {told(by[part])}{against}."
        )
    return said


PROBE = Probe(
    name="composition",
    sentence=(
        "The model does not perform well on more difficult tasks which involve compositionality, such as "
        'rendering an image corresponding to "A red cube on top of a blue sphere"'
    ),
    question="How often does a picture hold the things, numbers, colours and places that were asked for?",
    prompts=prompts,
    measure=measure,
)
