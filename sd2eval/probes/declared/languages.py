"""The card: the model was "trained mainly with English captions and will not work as well" in others.

The same captions in several languages are drawn with the same noise, and every picture is scored against the
*English* caption: the loss of a language is a difference of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError
from sd2eval.metrics.metric import Metric
from sd2eval.probes.base import (
    Answer,
    Bench,
    Drawn,
    Features,
    Probe,
    ProbePrompt,
    PromptSet,
    Row,
    Tile,
    label,
)
from sd2eval.probes.means import mean_interval
from sd2eval.probes.measured_rates import unsure
from sd2eval.probes.named_metrics import of_family, possible
from sd2eval.probes.prompt_sets import load_records, made
from sd2eval.statistics import Estimate, holm, p_value, standard_error

ENGLISH = "en"
MINI_NAMES = {"en": "English", "es": "Spanish", "de": "German"}
TILES = 3
"""Captions on the contact sheet, each in every language."""

Array = NDArray[np.float64]


def prompts(bench: Bench) -> PromptSet:
    """Return every caption in every language; the languages of a caption share its key, and so its noise."""
    wanted = list(dict.fromkeys([ENGLISH, *bench.settings["languages"]]))
    if len(wanted) < 2:
        raise InputError(f"settings.languages.languages=[{ENGLISH}]: name one besides English, such as [es]")
    return _of_scenes(bench, wanted) if bench.family == "mini" else _of_file(bench, wanted)


def _of_scenes(bench: Bench, wanted: Sequence[str]) -> PromptSet:
    from sd2eval.mini.captions import CAPTIONS_PER_SCENE, translate
    from sd2eval.mini.dataset import FIRST_CAPTION_ID, FIRST_IMAGE_ID, held_out_scenes

    unknown = sorted(set(wanted) - MINI_NAMES.keys())
    if unknown:
        raise InputError(f"settings.languages.languages: the mini world speaks {', '.join(MINI_NAMES)}")
    made_of = [
        ProbePrompt(
            key=FIRST_CAPTION_ID + CAPTIONS_PER_SCENE * index,
            text=translate(scene, language),  # type: ignore[arg-type]
            labels={"language": language},
            group=FIRST_IMAGE_ID + index,
        )
        for index, scene in enumerate(held_out_scenes(int(bench.settings["n"])))
        for language in wanted
    ]
    return made("languages", "held-out scenes of the mini world", "that of this package", made_of)


def _of_file(bench: Bench, wanted: Sequence[str]) -> PromptSet:
    needs = {"caption_id": int, "image_id": int, "translations": dict}
    found = load_records(bench.settings["file"], needs)
    made_of = []
    for at, record in enumerate(found.records[: int(bench.settings["n"])]):
        absent = [one for one in wanted if not record["translations"].get(one, "").strip()]
        if absent:
            raise InputError(f"{bench.settings['file']}: records[{at}]: there is no text in {absent[0]}")
        made_of += [
            ProbePrompt(
                key=record["caption_id"],  # a probe that draws the caption itself shares the English picture
                text=record["translations"][one],
                labels={"language": one},
                group=record["image_id"],
            )
            for one in wanted
        ]
    return made("languages", found.source, found.licence, made_of, found.digest)


@dataclass(frozen=True)
class Scored:
    """Pictures of one language: how well they agree with the English captions."""

    own: Array
    """[n], cosine of each picture with its own English caption."""
    others: Array
    """[n], its mean cosine with all other English captions."""


def scored(images: Features, captions: Features) -> Scored:
    """Return the agreement of pictures [n, d] with the English captions [n, d] that they were drawn for."""
    a, b = (_unit(rows) for rows in (images, captions))
    cosines = a @ b.T
    own = np.diag(cosines)
    return Scored(own, (cosines.sum(axis=1) - own) / (len(own) - 1))


def _unit(rows: Features) -> Array:
    wide = rows.astype(np.float64)
    unit: Array = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def loss(english: Scored, other: Scored) -> Estimate:
    """Return how much lower a language scores than English, paired by caption."""
    return _mean(english.own - other.own)


def kept(english: Scored, other: Scored) -> Estimate:
    """Return which share of the gain over unrelated captions a language keeps.

    The gain is the cosine with the own caption less that with the others': 1 keeps all that English has, 0
    draws nothing of the caption. A ratio of means, with influences by the delta method.
    """
    top, bottom = other.own - other.others, english.own - english.others
    ratio = float(top.mean() / bottom.mean())
    influence = (top - ratio * bottom) / bottom.mean()
    return Estimate(ratio, influence - influence.mean())


def _mean(values: Array) -> Estimate:
    return Estimate(float(values.mean()), values - values.mean())


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Draw every language and compare it with English."""
    metric = of_family(bench, "score")
    by_language: dict[str, list[ProbePrompt]] = {}
    for one in prompts(bench).prompts:
        by_language.setdefault(one.labels["language"], []).append(one)
    english = by_language[ENGLISH]
    drawn = {name: bench.draw(checkpoint, texts) for name, texts in by_language.items()}
    usable = np.all([one.valid for one in drawn.values()], axis=0)
    bench.progress("scoring")
    captions = bench.texts("score", [one.text for one in english])[usable]
    found = {
        name: scored(bench.features("score", one.images)[usable], captions) for name, one in drawn.items()
    }
    groups = [one.group for one, use in zip(english, usable, strict=True) if use]
    rows = _rows(found, groups, metric, label(bench.extractor("score")), _cut(drawn))
    tiles = _tiles(by_language, drawn, found, usable)
    return Answer(rows=rows, sentences=_sentences(rows, bench), tiles=tiles)


def _cut(drawn: Mapping[str, Drawn]) -> dict[str, str]:
    """Return a note for each language of which captions were too long for the text encoder."""
    counts = {name: int(one.truncated.sum()) for name, one in drawn.items()}
    return {
        name: f"{count} captions were cut at the text encoder's context"
        for name, count in counts.items()
        if count
    }


def _rows(
    found: Mapping[str, Scored], groups: Sequence[int], metric: Metric, judge: str, notes: Mapping[str, str]
) -> list[Row]:
    english, others = found[ENGLISH], [name for name in found if name != ENGLISH]

    def row(part: str, name: str, one: Estimate, unit: str, note: str = "") -> Row:
        low, high = mean_interval(one, groups)
        if name == metric.name:
            low, high = possible(metric, low, high)
        return Row(
            part=part,
            metric=name,
            value=one.value,
            stderr=standard_error(one.influence, groups),
            low=low,
            high=high,
            n=one.n,
            direction="lower" if name.endswith("_loss") else "higher",
            unit=unit,
            component=judge,
            note=note,
        )

    mean = _average([found[name] for name in others])
    rows = [
        row("", f"{metric.name}_loss", loss(english, mean), "cosine", "mean of the languages"),
        row("", "kept", kept(english, mean), "share", "mean of the languages"),
    ]
    for name, one in found.items():
        rows.append(
            row(name, metric.name, _mean(one.own), "cosine with the English caption", notes.get(name, ""))
        )
    losses = [loss(english, found[name]) for name in others]
    for name, lost, p in zip(others, losses, _corrected(losses, groups), strict=True):
        note = f"paired with English; p = {p:.2g}{f' (Holm, {len(others)} languages)' * (len(others) > 1)}"
        rows.append(row(name, f"{metric.name}_loss", lost, "cosine", note))
        rows.append(row(name, "kept", kept(english, found[name]), "share"))
    return rows


def _average(languages: Sequence[Scored]) -> Scored:
    """Return the mean over languages, caption by caption."""
    own, others = (np.mean([getattr(one, key) for one in languages], axis=0) for key in ("own", "others"))
    return Scored(own, others)


def _corrected(losses: Sequence[Estimate], groups: Sequence[int]) -> Array:
    """Return the p-values of "nothing is lost", corrected for the number of languages."""
    dof = len(set(groups)) - 1
    return holm([p_value(one.value, standard_error(one.influence, groups), dof) for one in losses])


def _sentences(rows: Sequence[Row], bench: Bench) -> list[str]:
    names = dict(bench.settings.get("names") or {})
    kept_rows = sorted((row for row in rows if row.metric == "kept" and row.part), key=lambda row: row.value)
    whole = next(row for row in rows if row.metric.endswith("_loss") and not row.part)
    losses = {row.part: row for row in rows if row.metric.endswith("_loss") and row.part}

    def told(row: Row) -> str:
        lost = losses[row.part]
        return (
            f"{names.get(row.part, row.part)} loses {lost.value:.3f} ({lost.low:.3f} to {lost.high:.3f}) and "
            f"keeps {row.value:.0%} ({row.low:.0%} to {row.high:.0%}) of what English captions gain over "
            "unrelated ones"
        )

    worst, best = kept_rows[0], kept_rows[-1]
    count = f"{len(kept_rows)} other languages" if len(kept_rows) > 1 else "another language"
    sentences = [
        f"Drawn from {count}, pictures score {whole.value:.3f} ({whole.low:.3f} to {whole.high:.3f}) lower "
        f"with the English caption than those drawn from it (cosine, n = {whole.n}).",
    ]
    if len(kept_rows) == 1:
        sentences.append(f"{told(worst)}.")
    else:
        sentences += [f"Worst: {told(worst)}.", f"Best: {told(best)}{unsure(worst, best)}."]
    return sentences


def _tiles(
    by_language: Mapping[str, Sequence[ProbePrompt]],
    drawn: Mapping[str, Drawn],
    found: Mapping[str, Scored],
    usable: NDArray[np.bool_],
) -> list[Tile]:
    places = np.flatnonzero(usable)
    return [
        Tile(
            image=drawn[name].images[place],
            text=f"[{name}] {by_language[name if _latin(texts[place].text) else ENGLISH][place].text}",
            found=f"{found[name].own[rank]:.3f} with the English caption",
        )
        for rank, place in enumerate(places[:TILES])
        for name, texts in by_language.items()
    ]


def _latin(text: str) -> bool:
    """Whether the contact sheet's font has the letters; else it shows the English caption."""
    return all(ord(letter) < 0x250 for letter in text)


PROBE = Probe(
    name="languages",
    sentence="The model was trained mainly with English captions and will not work as well in other "
    "languages.",
    question="How much worse do pictures get when the same captions are given in other languages?",
    prompts=prompts,
    measure=measure,
)
