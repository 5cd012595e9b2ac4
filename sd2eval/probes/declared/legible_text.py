"""Can it write? Signs, labels and posters with one to four words, read by an OCR, compared by letters.

The reader is tested in the same call on rendered signs of the same texts and resolution: spelled right (it
must read them) and with one letter of each word replaced (it must not read what was meant). These errors
correct the rates of words and signs. A character error rate has no such correction; what the reader alone
adds to it stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError
from sd2eval.probes.base import Answer, Bench, Box, Probe, ProbePrompt, PromptSet, Row, Tile
from sd2eval.probes.measured_rates import confused, enough, mean_row, rate_row, told
from sd2eval.probes.prompt_sets import load_prompts, made
from sd2eval.probes.proportions import Confusion
from sd2eval.probes.reading import WordRead, compare, words_of
from sd2eval.probes.sightings import Word
from sd2eval.probes.signs import draw_sign, misspelt

LENGTHS = ((2, 3), (4, 5), (6, 8), (9, 12))
"""Letters of a word, by which the rows are cut."""
HEIGHTS = (0, 6, 9, 14, 22, 36, math.inf)
"""Pixels of a capital letter, by which the reader's own errors are cut."""
SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One word of one sign, rendered or generated."""

    sign: int
    word: WordRead
    height: float = math.nan
    """Of a capital letter in pixels; NaN of generated signs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """How a reader does on rendered signs."""

    right: tuple[Checked, ...]
    """Of signs that say what was meant."""
    wrong: tuple[Checked, ...]
    """Of signs with one letter of each word replaced; compared with what was meant."""

    def errors(self, low: int = 0, high: int = 99) -> Confusion:
        """Return how often words of `low` to `high` letters are read, where they stand and where not."""
        right, wrong = (
            np.array([one.word.exact for one in part if low <= len(one.word.wanted) <= high])
            for part in (self.right, self.wrong)
        )
        return confused(right, wrong)

    def sign_errors(self) -> Confusion:
        """Return the same for whole signs: all words of a sign."""
        return confused(_whole_signs(self.right), _whole_signs(self.wrong))

    def floor(self, low: int = 0, high: int = 99) -> float:
        """Return the character error rate that the reader has by itself."""
        rates = [one.word.error_rate for one in self.right if low <= len(one.word.wanted) <= high]
        return float(np.mean(rates))


def prompts(bench: Bench) -> PromptSet:
    """Return the first `n` prompts of the file that have at most `most_words` words to write."""
    found = load_prompts(str(bench.settings["prompts"]))
    for prompt in found.prompts:
        if not words_of(prompt.labels.get("text", "")):
            raise InputError(
                f"{bench.settings['prompts']}: prompt {prompt.key} has no label 'text' to be written"
            )
    most = int(bench.settings["most_words"])
    kept = [one for one in found.prompts if len(_text(one).split()) <= most][: int(bench.settings["n"])]
    return made(found.name, found.source, found.licence, kept, found.digest)


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Draw the signs, read them, and test the reader on rendered ones."""
    drawn_of = prompts(bench).prompts
    reader, limit = bench.component("reader"), float(bench.settings["limit"])
    drawn = bench.draw(checkpoint, drawn_of)
    asked = [one for one, valid in zip(drawn_of, drawn.valid, strict=True) if valid]
    images = drawn.images[drawn.valid]
    bench.progress("reading the signs")
    read = reader.read(images)
    bench.progress("testing the reader on rendered signs")
    texts = tuple(_text(one) for one in drawn_of) * int(bench.settings["tests"])
    test = tested(reader, texts, bench.protocol.resolution)
    found = [compare(_text(one), lines) for one, lines in zip(asked, read, strict=True)]
    checked = [Checked(sign=i, word=word) for i, words in enumerate(found) for word in words]
    rows = [*_rows(checked, reader, test, limit), *reader_rows(test, reader)]
    tiles = [
        _tile(image, prompt, words, lines)
        for image, prompt, words, lines in zip(images, asked, found, read, strict=True)
    ]
    return Answer(rows=rows, sentences=_sentences(rows), tiles=_mixed(tiles))


@cache
def tested(reader: Any, texts: tuple[str, ...], resolution: int) -> Test:
    """Return how a reader does on rendered signs of texts: each once as it is, once misspelt."""
    rng = np.random.default_rng(SEED)
    right: list[Checked] = []
    wrong: list[Checked] = []
    for number, text in enumerate(texts):
        for written, part in ((text, right), (misspelt(text, rng), wrong)):
            sign = draw_sign(written, resolution, rng)
            words = compare(text, reader.read(sign.image[None])[0])
            part += [Checked(sign=number, word=word, height=sign.height) for word in words]
    return Test(right=tuple(right), wrong=tuple(wrong))


def _rows(checked: Sequence[Checked], reader: Any, test: Test, limit: float) -> list[Row]:
    rows = []
    for part, low, high in [("", 0, 99), *((f"{low}-{high} letters", low, high) for low, high in LENGTHS)]:
        some = [one for one in checked if low <= len(one.word.wanted) <= high]
        signs = [one.sign for one in some]
        if not enough(signs):
            continue
        exact, rates = [one.word.exact for one in some], [one.word.error_rate for one in some]
        rows.append(
            rate_row(
                "exact_word_rate",
                exact,
                signs,
                part=part,
                component=reader,
                errors=test.errors(low, high),
                unit="share of words",
                limit=limit,
            )
        )
        rows.append(
            mean_row(
                "character_error_rate",
                rates,
                signs,
                part=part,
                component=reader,
                error=test.floor(low, high),
                direction="lower",
                unit="edits per letter",
                limit=limit,
                bounds=(0.0, 1.0),
                note="not corrected; `error` is what the reader adds on rendered signs",
            )
        )
    return [*rows, *_sign_rows(checked, reader, test, limit)]


def _sign_rows(checked: Sequence[Checked], reader: Any, test: Test, limit: float) -> list[Row]:
    """Return how many signs are right as a whole, also by their number of words."""
    words = {one.sign: [other for other in checked if other.sign == one.sign] for one in checked}
    rows = []
    for part, counts in [
        ("", range(1, 99)),
        *((f"{n} words" if n > 1 else "1 word", (n,)) for n in range(1, 5)),
    ]:
        chosen = [signs for signs in words.values() if len(signs) in counts]
        if len(chosen) < 2:
            continue
        rows.append(
            rate_row(
                "exact_sign_rate",
                _whole_signs([one for sign in chosen for one in sign]),
                np.arange(len(chosen)),
                part=part,
                component=reader,
                errors=test.sign_errors(),
                unit="share of signs",
                limit=limit,
            )
        )
    return rows


def reader_rows(test: Test, reader: Any) -> list[Row]:
    """Return how often the reader misses a rendered word, by the height of its letters."""
    rows = []
    for low, high in pairwise(HEIGHTS):
        some = [one for one in test.right if low <= one.height < high]
        signs = [one.sign for one in some]
        if not enough(signs):
            continue
        missed = [not one.word.exact for one in some]
        part = (
            f"rendered, {low:g}-{high:g} px letters" if high < math.inf else f"rendered, {low:g} px and more"
        )
        row = rate_row(
            "reader_miss_rate",
            missed,
            signs,
            part=part,
            component=reader,
            errors=None,
            direction="lower",
            unit="share of words",
        )
        rows.append(replace(row, note="on rendered signs, whose text is known"))
    return rows


def _whole_signs(checked: Iterable[Checked]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return for each sign whether all its words are exact."""
    signs: dict[int, bool] = {}
    for one in checked:
        signs[one.sign] = signs.get(one.sign, True) and one.word.exact
    return np.array(list(signs.values()), dtype=np.bool_)


def _text(prompt: ProbePrompt) -> str:
    return prompt.labels["text"]


def _tile(image: Any, prompt: ProbePrompt, words: Sequence[WordRead], lines: Sequence[Word]) -> Tile:
    boxes = tuple(
        Box(left=one.box[0], top=one.box[1], right=one.box[2], bottom=one.box[3], label=one.text)
        for one in lines
    )
    seen = " ".join(word for line in lines for word in words_of(line.text))
    return Tile(
        image=image,
        text=f'"{_text(prompt)}"',
        found=f"read: {seen}" if seen else "no text read",
        good=all(word.exact for word in words),
        boxes=boxes,
    )


def _mixed(tiles: Sequence[Tile]) -> list[Tile]:
    """Put what could be read first, then where anything was read, then the rest."""
    return sorted(tiles, key=lambda tile: (not tile.good, not tile.boxes))


def _sentences(rows: Sequence[Row]) -> list[str]:
    by = {(row.metric, row.part): row for row in rows}
    word, sign = by["exact_word_rate", ""], by["exact_sign_rate", ""]
    letters = by["character_error_rate", ""]
    lengths = [
        f"{row.part} {told(row)}" for row in rows if row.metric == "exact_word_rate" and "letters" in row.part
    ]
    return [
        f"Of {word.n} words asked for, letter by letter right: {told(word)}; of {sign.n} signs, right as a "
        f"whole: {told(sign)}.",
        f"Edits per letter between a word and what comes nearest to it (1: nothing like it): "
        f"{told(letters, percent=False)}.",
        f"Right by length: {'; '.join(lengths)}.",
        f"The reader was tested on rendered signs of the same texts and size: it errs in {word.error:.1%} of "
        "words. Where it errs too often there is no number.",
    ]


PROBE = Probe(
    name="legible_text",
    sentence="The model cannot render legible text",
    question="How often does a word that was asked for stand in the picture, letter by letter?",
    prompts=prompts,
    measure=measure,
)
