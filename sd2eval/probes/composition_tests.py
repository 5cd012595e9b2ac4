"""How often the composition probe's detectors are right: on rendered scenes, and on marked photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import CheckpointConfig
from sd2eval.images import for_protocol, load_rgb
from sd2eval.probes import mini_tasks, photo_truth
from sd2eval.probes.base import Bench, ProbePrompt, Unavailable
from sd2eval.probes.composing import judge, wanted_of
from sd2eval.probes.measured_rates import confused
from sd2eval.probes.proportions import Confusion
from sd2eval.probes.sightings import Found

SEED = 12


def threshold(settings: Mapping[str, Any], task: str) -> float:
    """Return the smallest score of an object that counts in a task."""
    return float(settings["least_counted" if task == "counting" else "least"])


def mini_errors(
    bench: Bench, checkpoint: CheckpointConfig, asked: Sequence[ProbePrompt]
) -> dict[str, Confusion]:
    """Return the errors by part on rendered scenes, each sentence once fulfilled and once not.

    The scenes go through the checkpoint's autoencoder first, and then to the protocol's size.
    """
    from sd2eval.probes.declared.autoencoder import there_and_back

    rng = np.random.default_rng(SEED)
    size = checkpoint.resolution
    repeats = int(bench.settings["tests"])
    labels = [one.labels for one in asked for _ in range(repeats)]
    right = np.stack([mini_tasks.picture(one, rng, size) for one in labels])
    wrong = np.stack([mini_tasks.picture(mini_tasks.spoiled(one, rng), rng, size) for one in labels])
    networks = bench.load(checkpoint)
    answers = []
    for scenes in (right, wrong):
        soft = there_and_back(networks, scenes, bench.protocol.quantize)
        shown = np.stack([for_protocol(image, bench.protocol) for image in soft])
        seen = bench.component("detector").detect(shown)
        answers.append(_answers(bench, labels, seen))
    parts = np.array([one["part"] for one in labels])
    return {
        part: confused(answers[0][parts == part], answers[1][parts == part]) for part in set(parts.tolist())
    }


def _answers(
    bench: Bench, labels: Sequence[Mapping[str, str]], seen: Sequence[Sequence[Found]]
) -> NDArray[np.bool_]:
    return np.array(
        [
            judge(wanted_of(one), found, threshold(bench.settings, one["task"])).correct
            for one, found in zip(labels, seen, strict=True)
        ]
    )


def photo_errors(bench: Bench) -> dict[str, Confusion]:
    """Return the errors of presence and numbers on the data set's photographs; empty where none are marked.

    The photographs are looked at whole, because what is marked in them is not always in their middle.
    """
    try:
        path = bench.annotations("instances")
    except Unavailable:
        return {}
    folder, most = bench.dataset.image_folder, int(bench.settings["photos"])
    truths = [one for one in photo_truth.photos(path) if (folder / one.file).is_file()][:most]
    seen: list[list[Found]] = []
    for truth in truths:
        bench.progress(f"testing the detector: {len(seen)} of {len(truths)} photographs")
        found = bench.component("detector").detect(load_rgb(folder / truth.file)[None])[0]
        seen.append([replace(one, mask=None) for one in found])
    if not truths:
        return {}
    names = photo_truth.categories(path)
    there = photo_truth.presence(truths, seen, threshold(bench.settings, "single_object"), names)
    numbers = photo_truth.counts(truths, seen, threshold(bench.settings, "counting"))
    both = both_present(there)
    return {"single_object": there, "two_object": both} | ({"counting": numbers} if numbers.positives else {})


def both_present(one: Confusion) -> Confusion:
    """Return the errors of "both are there" from those of one: the negatives lack one of the two."""
    sensitivity, alarm = one.sensitivity, 1 - one.specificity
    return Confusion(
        hits=one.positives * sensitivity**2,
        positives=one.positives,
        false_alarms=one.negatives * alarm * sensitivity,
        negatives=one.negatives,
    )
