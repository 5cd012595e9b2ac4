"""Calibration of `legible_text` on rendered signs, right or with one wrong letter in each word.

PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/probe_calibrations/legible_text.py
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import torch
from probe_calibrations._repeating import HEAD, Pool, singles, table

from sd2eval.config.probing import from_overrides
from sd2eval.probes.prompt_sets import load_prompts
from sd2eval.probes.reading import compare
from sd2eval.probes.signs import draw_sign, misspelt

VERSIONS = 4
"""Renderings of each text and spelling."""
HEIGHTS = (6, 8, 10, 12, 16, 24, 32, 48)


def reader(name: str) -> object:
    """Load a reader as conf/ has it."""
    config, _ = from_overrides()
    one = config.components[name]
    return import_module(f"sd2eval.probes.components.{one.kind}").load(one, torch.device("cpu"))


def pools(resolution: int, most_words: int, texts: int, eye: object) -> tuple[Pool, Pool]:
    """Return which words are read of signs that are right, and of misspelt ones, sign by sign."""
    rng = np.random.default_rng(resolution)
    asked = [one.labels["text"] for one in load_prompts("legible_text.json").prompts]
    asked = [one for one in asked if len(one.split()) <= most_words][:texts]
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for text in asked * VERSIONS:
        for part, written in enumerate((text, misspelt(text, rng))):
            image = draw_sign(written, resolution, rng).image
            lines = eye.read(image[None])[0]  # type: ignore[attr-defined]
            found[part].append(np.array([word.exact for word in compare(text, lines)]))
    return found


def calibration_legible_text() -> str:
    """Return the tables of words, of whole signs, and of the reader by the height of letters."""
    eye, rows = reader("ocr_rapidocr_small"), [HEAD]
    for resolution, most_words, texts in ((64, 2, 48), (256, 4, 24)):
        right, wrong = pools(resolution, most_words, texts, eye)
        name = f"words of rendered signs, {resolution} px"
        rows += table(name, right, wrong, n=48, tests=144)
        whole = [singles(np.array([one.all() for one in part])) for part in (right, wrong)]
        rows += table(f"rendered signs, {resolution} px", *whole, n=48, tests=144)
    return "\n".join([*rows, "", reader_by_height()])


def reader_by_height() -> str:
    """Return how often words are read by the height of their letters, in pictures of 512 pixels."""
    eye, rng = reader("ocr_rapidocr"), np.random.default_rng(0)
    asked = [one.labels["text"] for one in load_prompts("legible_text.json").prompts][:24]
    rows = ["| height of a capital, px | words | read | misspelt, yet read as meant | edits per letter |"]
    rows.append("|---|---|---|---|---|")
    for height in HEIGHTS:
        right, wrong, edits = [], [], []
        for text in asked:
            sign = draw_sign(text, 512, rng, float(height))
            if sign.height < height:
                continue  # did not fit
            words = compare(text, eye.read(sign.image[None])[0])  # type: ignore[attr-defined]
            right += [one.exact for one in words]
            edits += [one.error_rate for one in words]
            other = draw_sign(misspelt(text, rng), 512, rng, float(height))
            wrong += [one.exact for one in compare(text, eye.read(other.image[None])[0])]  # type: ignore[attr-defined]
        numbers = f"{np.mean(right):.1%} | {np.mean(wrong):.1%} | {np.mean(edits):.3f}"
        rows.append(f"| {height} | {len(right)} | {numbers} |")
    return "\n".join(rows)
