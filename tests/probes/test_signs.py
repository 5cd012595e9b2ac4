"""Rendered signs: their text is known, and so is the height of its letters."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.probes.reading import edits
from sd2eval.probes.signs import FONTS, draw_sign, misspelt


def test_a_sign_is_a_pure_function_of_its_random_numbers() -> None:
    first, again, other = (draw_sign("OPEN", 96, np.random.default_rng(seed)).image for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("height", [8.0, 16.0, 40.0])
def test_letters_are_as_high_as_is_said(height: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd2eval.probes.signs.TILT", 0.0)
    monkeypatch.setattr("sd2eval.probes.signs.BLUR", 0.0)
    for seed in range(8):
        sign = draw_sign("HHH", 256, np.random.default_rng(seed), height)
        assert sign.height == height
        inside = sign.image[10:-10, 10:-10].astype(int)  # without the ground
        marked = (np.abs(inside - inside[0, 0]) > 30).any(axis=(1, 2))
        assert abs(marked.sum() - height) <= 0.1 * height + 1.5


def test_a_text_that_does_not_fit_becomes_smaller_until_it_does() -> None:
    for seed in range(2 * len(FONTS)):
        sign = draw_sign("CONSTRUCTION", 128, np.random.default_rng(seed), 60.0)
        assert 0 < sign.height < 20
        assert sign.image.shape == (128, 128, 3)


def test_a_misspelt_text_has_one_other_letter_in_each_word() -> None:
    rng = np.random.default_rng(0)
    for text in ("OPEN", "FRESH bread GO", "A"):
        for _ in range(20):
            wrong = misspelt(text, rng)
            assert [edits(a, b) for a, b in zip(text.split(), wrong.split(), strict=True)] == [1] * len(
                text.split()
            )
            assert [len(word) for word in wrong.split()] == [len(word) for word in text.split()]
            assert wrong != text
