"""Captions of the data set as prompts of probes: one per image, in the order of the run's draw."""

from __future__ import annotations

from sd2eval.probes.base import Bench, ProbePrompt, PromptSet
from sd2eval.probes.prompt_sets import made


def of_data_set(bench: Bench, n: int) -> PromptSet:
    """Return the first `n` captions of different images; fewer where there are fewer images.

    Probes that take them at the same seed and scale share the pictures.
    """
    chosen: dict[int, ProbePrompt] = {}
    for prompt in bench.dataset.prompts:
        if len(chosen) == n:
            break
        if prompt.image_id not in chosen:
            chosen[prompt.image_id] = ProbePrompt(
                key=prompt.caption_id,
                text=prompt.text,
                image_file=prompt.image_file,
                group=prompt.image_id,
            )
    return made(
        "captions",
        "captions of the data set, one per image, in the order of the draw (captions_seed)",
        "the data set's",
        chosen.values(),
        bench.dataset.captions_digest,
    )
