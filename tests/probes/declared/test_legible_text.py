"""Signs that are rendered right or misspelt: the probe must tell how many are right."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.probes.base import ProbePrompt, Row
from sd2eval.probes.declared import legible_text
from sd2eval.probes.signs import draw_sign, misspelt
from tests.probes.making import loaded
from tests.probes.rendering import RenderingBench

SIZE = 160


def bench(right: float, n: int = 12, **changed: object) -> RenderingBench:
    """Draws the first share of signs as asked for, the others with one wrong letter in each word."""
    rng = np.random.default_rng(3)
    keys: list[int] = []

    def picture(prompt: ProbePrompt) -> np.ndarray:
        keys.append(prompt.key)
        text = prompt.labels["text"]
        return draw_sign(text if len(keys) <= right * n else misspelt(text, rng), SIZE, rng).image

    made = RenderingBench("legible_text", picture, changed={"n": n, "tests": 1} | changed)
    made.config.protocol = replace(made.config.protocol, resolution=SIZE)
    return made


def rows(answer: object) -> dict[tuple[str, str], Row]:
    return {(row.metric, row.part): row for row in answer.rows}  # type: ignore[attr-defined]


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_the_share_of_right_signs_is_found(right: float) -> None:
    used = bench(right)
    answer = legible_text.measure(used, used.checkpoint)
    signs = rows(answer)["exact_sign_rate", ""]
    assert signs.low <= right <= signs.high
    assert signs.value == pytest.approx(right, abs=0.1)
    assert signs.n == 12
    assert signs.error < 0.1
    words = rows(answer)["exact_word_rate", ""]
    assert words.low <= right <= words.high
    assert sum(tile.good is True for tile in answer.tiles) == round(12 * right)
    assert signs.component.startswith("ocr_rapidocr_small@")


def test_misspelt_words_have_one_edit_per_word() -> None:
    used = bench(0.0)
    answer = rows(legible_text.measure(used, used.checkpoint))
    lengths = [len(word) for one in legible_text.prompts(used).prompts for word in one.labels["text"].split()]
    expected = np.mean([1 / length for length in lengths])
    assert answer["character_error_rate", ""].value == pytest.approx(expected, abs=0.05)


def test_letters_too_small_to_read_give_no_number() -> None:
    used = bench(1.0, n=8)
    used.config.protocol = replace(used.config.protocol, resolution=32)
    row = rows(legible_text.measure(used, used.checkpoint))["exact_word_rate", ""]
    assert math.isnan(row.value)
    assert row.error > 0.2
    assert "errs too often" in row.note


def test_failed_pictures_are_left_out() -> None:
    used = bench(1.0)
    used.invalid = (0, 1, 2)
    assert rows(legible_text.measure(used, used.checkpoint))["exact_sign_rate", ""].n == 9


def test_prompts_have_texts_of_the_lengths_that_are_claimed() -> None:
    used = bench(1.0, n=1000, most_words=4)
    prompts = legible_text.prompts(used).prompts
    assert len(prompts) == 160
    for one in prompts:
        words = one.labels["text"].split()
        assert 1 <= len(words) <= 4
        assert all(2 <= len(word) <= 12 and word.isalpha() and word.isupper() for word in words)
        assert f'"{one.labels["text"]}"' in one.text
        assert len(set(words)) == len(words)
    assert len({one.labels["text"] for one in prompts}) == 160
    few = legible_text.prompts(bench(1.0, n=16, most_words=4)).prompts
    assert [one.labels["words"] for one in few] == ["1", "2", "3", "4"] * 4  # any beginning is balanced


def test_prompts_without_a_text_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "own.txt").write_text("A sign.\n")
    with pytest.raises(InputError, match="has no label 'text'"):
        legible_text.prompts(bench(1.0, prompts=str(tmp_path / "own.txt")))


def test_the_reader_is_tested_on_both_spellings() -> None:
    test = legible_text.tested(loaded("ocr_rapidocr", options={"limit_side_len": 256}), ("OPEN", "TEA"), SIZE)
    assert test.errors().error == 0
    assert (test.errors().positives, test.errors().negatives) == (2, 2)
    assert test.errors(4, 4).positives == 1
    assert test.floor() == 0
