"""The card's own sentence, judged by CLIP where no detector knows cubes and spheres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sd2eval.probes import mini_tasks
from sd2eval.probes.base import Bench, ProbePrompt, Row, Tile
from sd2eval.probes.measured_rates import confused, rate_row

CARD = "card"
"""The part of the card's own sentence."""
SEED = 12
RIVALS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "a blue sphere on top of a red cube",
        {
            "first": "ball",
            "first_colour": "blue",
            "second": "cube",
            "second_colour": "red",
            "relation": "above",
        },
    ),
    (
        "a blue cube on top of a red sphere",
        {
            "first": "cube",
            "first_colour": "blue",
            "second": "ball",
            "second_colour": "red",
            "relation": "above",
        },
    ),
    (
        "a red sphere on top of a blue cube",
        {
            "first": "ball",
            "first_colour": "red",
            "second": "cube",
            "second_colour": "blue",
            "relation": "above",
        },
    ),
    (
        "a red cube next to a blue sphere",
        {
            "first": "cube",
            "first_colour": "red",
            "second": "ball",
            "second_colour": "blue",
            "relation": "left of",
        },
    ),
    ("a red cube", {"first": "cube", "first_colour": "red"}),
    ("a blue sphere", {"first": "ball", "first_colour": "blue"}),
)
"""What could be drawn instead, in words and as a rendered scene."""
OWN = {"first": "cube", "first_colour": "red", "second": "ball", "second_colour": "blue", "relation": "above"}


def card_by_clip(
    bench: Bench, pictures: Sequence[tuple[ProbePrompt, NDArray[np.uint8]]]
) -> tuple[list[Row], list[Tile]]:
    """Return how often CLIP takes the card's sentence for the best of seven that could be meant.

    Tested on rendered scenes of all seven. Where CLIP is too weak at who is on top there is no number.
    """
    if len(pictures) < 2:
        return [], []
    texts = bench.texts("score", [mini_tasks.CARD, *(text for text, _ in RIVALS)])

    def chosen(images: NDArray[np.uint8]) -> NDArray[np.intp]:
        best: NDArray[np.intp] = (bench.features("score", images) @ texts.T).argmax(axis=1)
        return best

    rng, size = np.random.default_rng(SEED), bench.protocol.resolution
    n = int(bench.settings["card_tests"])
    right = np.stack([mini_tasks.picture(OWN, rng, size) for _ in range(n)])
    wrong = np.stack([mini_tasks.picture(RIVALS[i % len(RIVALS)][1], rng, size) for i in range(n)])
    errors = confused(chosen(right) == 0, chosen(wrong) == 0)
    best = chosen(np.stack([image for _, image in pictures]))
    row = rate_row(
        "correct_rate",
        best == 0,
        [prompt.key for prompt, _ in pictures],
        part=CARD,
        component=bench.extractor("score"),
        errors=errors,
        limit=float(bench.settings["limit"]),
        note="CLIP chooses among seven sentences; tested on rendered scenes only",
    )
    names = [mini_tasks.CARD, *(text for text, _ in RIVALS)]
    tiles = [
        Tile(image=image, text=prompt.text, found=f"CLIP: {names[one]}", good=bool(one == 0))
        for (prompt, image), one in zip(pictures, best, strict=True)
    ]
    return [row], tiles
