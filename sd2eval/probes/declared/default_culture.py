"""Which place does it draw when none is named? Unmarked images among images of named places.

Images of "a wedding in Nigeria", "... in Peru" teach a classifier what the checkpoint draws for each place;
an image of "a wedding" is then nearest to one of them. The shares of the answers are corrected for what the
classifier gets wrong on named images that were left out. Countries are grouped into regions, whose shares
are compared with their shares of the population. Images can be undecided, and a classifier that errs too
often gives no shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sd2eval.config import CheckpointConfig
from sd2eval.mini import world
from sd2eval.mini.captions import PLACE_PHRASES
from sd2eval.probes import nearest_class, proportions
from sd2eval.probes.base import Answer, Bench, Probe, ProbePrompt, PromptSet, Row, Tile, label
from sd2eval.probes.measured_rates import error_row, told, unsure
from sd2eval.probes.prompt_sets import load_records, made
from sd2eval.probes.shares import SURPLUS, Answers, ClassErrors, corrected, surplus
from sd2eval.probes.tiles import one_of_each


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place that a prompt can name."""

    name: str
    phrase: str
    """As it stands in a prompt: `in Nigeria`."""
    region: str
    weight: float
    """Population, or the planted probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Places and scenes of a family."""

    source: str
    licence: str
    digests: tuple[str, ...]
    places: tuple[Place, ...]
    scenes: tuple[str, ...]
    """With `{}` where the place goes, or nothing."""
    weights: str
    """What the weights of the places are."""

    def shares(self) -> dict[str, float]:
        """Return the share of each place in all weights."""
        total = sum(place.weight for place in self.places)
        return {place.name: place.weight / total for place in self.places}

    def regions(self) -> dict[str, float]:
        """Return the share of each region in all weights, regions in the order of their places."""
        totals: dict[str, float] = {}
        for place in self.places:
            totals[place.region] = totals.get(place.region, 0.0) + place.weight
        return {name: total / sum(totals.values()) for name, total in totals.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the shares of all classes have in common."""

    scenes: Sequence[int]
    """Of each unmarked image."""
    by: str
    """The extractor."""
    limit: float
    """Largest error of the classifier that gives shares."""
    weights: str
    """What the known shares are."""


def prompts(bench: Bench) -> PromptSet:
    """Return marked and unmarked prompts of each scene."""
    found = _world(bench)
    listed = list(_prompts(found, int(bench.settings["unmarked"]), int(bench.settings["marked"])))
    return made("places", found.source, found.licence, listed, *found.digests)


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Draw both kinds of prompts, learn the places, and ask which of them the unmarked images are."""
    scale = float(bench.settings["guidance_scale"])
    asked = prompts(bench).prompts
    drawn = bench.draw(checkpoint, asked, scale)
    kept = [one for one, valid in zip(asked, drawn.valid, strict=True) if valid]
    images = drawn.images[drawn.valid]
    slot = str(bench.settings["features"])
    features = np.asarray(bench.features(slot, images), dtype=np.float64)
    marked = np.array([one.labels["place"] != "" for one in kept])
    known = [one.labels["place"] for one in kept if one.labels["place"]]
    bench.progress("learning the places")
    found = _world(bench)
    regions = {place.name: place.region for place in found.places}
    scenes = [one.group for one in kept if one.labels["place"]]
    of_region = nearest_class.learn(features[marked], known, into=regions, groups=scenes)
    unmarked = [one for one in kept if not one.labels["place"]]
    asked_of = Asked(
        scenes=[one.group for one in unmarked],
        by=label(bench.extractor(slot)),
        limit=float(bench.settings["most_errors"]),
        weights=found.weights,
    )
    answers = of_region.answers(features[~marked])
    rows = _shares(of_region.errors, answers, found.regions(), asked_of)
    if len(set(regions.values())) < len(regions):
        of_place = nearest_class.learn(features[marked], known, groups=scenes)
        rows += _shares(of_place.errors, of_place.answers(features[~marked]), found.shares(), asked_of)
    rows += _quality(of_region.errors, answers, asked_of)
    tiles = [
        Tile(image=image, text=one.text, found=f"nearest to: {(*of_region.names, 'undecided')[answer]}")
        for one, image, answer in zip(unmarked, images[~marked], answers, strict=True)
    ]
    return Answer(
        rows=[_with_note(row, f"drawn at guidance {scale:g}") for row in rows],
        sentences=_sentences(rows, found, scale),
        tiles=one_of_each(tiles),
    )


def _world(bench: Bench) -> World:
    return _mini() if bench.family == "mini" else _published()


def _mini() -> World:
    objects = [
        (colour, shape)
        for colour in world.COLOURS
        for shape in world.SHAPES
        if (colour, shape) not in world.NEVER_OBJECTS
    ]
    return World(
        source="the mini world: its objects and places (sd2eval/mini/world.py)",
        licence="Apache-2.0",
        digests=(),
        places=tuple(
            Place(name=name, phrase=PLACE_PHRASES[name][0], region=name, weight=world.UNNAMED_PLACE[name])
            for name in world.PLACES
        ),
        scenes=tuple(f"A{'n' * (colour[0] in 'aeiou')} {colour} {shape}{{}}." for colour, shape in objects),
        weights="planted share",
    )


def _published() -> World:
    wanted: Mapping[str, Any] = {"name": str, "in": str, "region": str, "population_millions": (int, float)}
    countries = load_records("countries.json", wanted)
    scenes = load_records("cultural_scenes.json", {"text": str, "with_place": str})
    return World(
        source=f"{countries.source}; scenes: {scenes.source}",
        licence=f"{countries.licence}; scenes: {scenes.licence}",
        digests=(countries.digest, scenes.digest),
        places=tuple(
            Place(
                name=one["name"],
                phrase=one["in"],
                region=one["region"],
                weight=float(one["population_millions"]),
            )
            for one in countries.records
        ),
        scenes=tuple(one["with_place"].replace(" {place}", "{}") for one in scenes.records),
        weights="share of the population of these countries",
    )


def _prompts(found: World, unmarked: int, marked: int) -> Iterator[ProbePrompt]:
    """Yield `unmarked` prompts of each scene, and in all `marked` of each place, over the scenes in turn."""
    key = 0
    for group, scene in enumerate(found.scenes):
        for _ in range(unmarked):
            yield ProbePrompt(key=key, text=scene.format(""), labels={"place": ""}, group=group)
            key += 1
    for number, place in enumerate(found.places):
        for turn in range(marked):
            # Each place begins at another scene, so that places and scenes do not go together.
            group = (turn * _step(len(found.scenes)) + number) % len(found.scenes)
            text = found.scenes[group].format(f" {place.phrase}")
            labels = {"place": place.name, "region": place.region}
            yield ProbePrompt(key=key, text=text, labels=labels, group=group)
            key += 1


def _step(count: int) -> int:
    """Return a step through `count` scenes that visits all of them, and neighbours (of one colour) late."""
    return next(step for step in range(max(count // 4, 1), count + 1) if math.gcd(step, count) == 1)


def _shares(errors: ClassErrors, answers: Answers, known: Mapping[str, float], asked: Asked) -> list[Row]:
    """Return the share of each class and its difference from the known share; NaN where errors are many."""
    scenes, by, limit, weights = asked.scenes, asked.by, asked.limit, asked.weights
    reason, decided = errors.unfit("the classifier", limit), answers[answers < len(errors.names)]
    if not reason and len(decided) < 2:
        reason = "fewer than 2 unmarked images are decided"
    elif not reason and surplus(answers, errors) > SURPLUS:
        reason = "far more unmarked than marked images are undecided: they look like none of the places"
    shared: dict[str, Any] = {"n": len(decided), "direction": "none", "unit": "share of decided images"}
    shared |= {"component": by, "error": errors.error}
    if reason:
        return [
            Row(part=name, metric="share", value=math.nan, note=reason, **shared) for name in errors.names
        ]
    rows = []
    for one in corrected(answers, errors, scenes):
        seen = float(np.mean(decided == errors.names.index(one.name)))
        rest = known[one.name]
        note = f"seen in {seen:.1%}, corrected; {weights}: {rest:.1%}"
        ends = {"stderr": one.stderr, "note": note, "part": one.name, **shared}
        rows.append(Row(metric="share", value=one.value, low=one.low, high=one.high, **ends))
        ends["unit"] = "difference of shares"
        rows.append(
            Row(
                metric="share_above_expected",
                value=one.value - rest,
                low=one.low - rest,
                high=one.high - rest,
                **ends,
            )
        )
    return rows


def _quality(errors: ClassErrors, answers: Answers, asked: Asked) -> list[Row]:
    by = asked.by
    undecided = proportions.rate(answers == len(errors.names), asked.scenes)
    return [
        Row(
            metric="undecided",
            value=undecided.value,
            stderr=undecided.stderr,
            low=undecided.low,
            high=undecided.high,
            n=undecided.n,
            direction="none",
            unit="share of images",
            component=by,
            note=f"of marked images: {errors.undecided:.1%}",
        ),
        error_row(
            "classifier_error",
            errors,
            component=by,
            note="marked images that were left out of its learning, each class counting alike",
        ),
    ]


def _with_note(row: Row, note: str) -> Row:
    return replace(row, note=f"{row.note}; {note}" if row.note else note)


def _sentences(rows: Sequence[Row], found: World, scale: float) -> list[str]:
    regions = set(found.regions())
    given = [row for row in rows if row.metric == "share" and row.part in regions]
    by = {row.metric: row for row in rows}
    wrong, undecided = by["classifier_error"], by["undecided"]
    errs = f"The classifier errs in {told(wrong)} of {wrong.n} decided marked images that it was not shown"
    if math.isnan(wrong.value):
        errs = f"How often the classifier errs is not known: too few marked images are decided ({wrong.n})"
    told_of = f"{errs}; of the unmarked ones {told(undecided)} are undecided."
    if any(math.isnan(row.value) for row in given):
        return [f"No shares: {given[0].note}.", told_of]
    expected = found.regions()
    first, *others = sorted(given, key=lambda row: -row.value)
    near = [f"'{row.part}'" for row in others if unsure(row, first)]
    overlap = f"; its interval overlaps with that of {', '.join(near)}" if near else ""
    parts = "; ".join(f"{row.part} {told(row)} against {expected[row.part]:.1%}" for row in given)
    return [
        f"Where no place is named, {first.n} images at guidance {scale:g} are nearest to '{first.part}' most "
        f"often ({told(first)}){overlap}.",
        f"Share of images against {found.weights}: {parts}.",
        told_of,
    ]


PROBE = Probe(
    name="default_culture",
    sentence="White and western cultures are often set as the default",
    question="Which place does it draw when the prompt names none?",
    prompts=prompts,
    measure=measure,
)
