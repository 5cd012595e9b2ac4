"""Calibration of `composition` on rendered scenes that went through the mini family's autoencoder.

PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/probe_calibrations/composition.py
"""

from __future__ import annotations

import numpy as np
import torch
from probe_calibrations._repeating import HEAD, singles, table

from sd2eval.checkpoints import load
from sd2eval.config.probing import from_overrides
from sd2eval.mini.dataset import held_out_scenes
from sd2eval.mini.render import place_objects, render
from sd2eval.probes import mini_tasks
from sd2eval.probes.composing import TASKS, judge, wanted_of
from sd2eval.probes.declared.autoencoder import there_and_back
from sd2eval.probes.measured_rates import confused, rate_row
from sd2eval.probes.sightings import Found

POOL = 400
"""Rendered scenes of each task, and as many spoiled ones."""


def detector() -> object:
    """Load the analytic detector."""
    from sd2eval.probes.components import mini_detector

    config, _ = from_overrides()
    return mini_detector.load(config.components["mini_detector"], torch.device("cpu"))


def answers(task: str, networks: object, eye: object) -> tuple[np.ndarray, np.ndarray]:
    """Return verdicts about scenes that hold what the task's sentences ask for, and about spoiled ones."""
    rng = np.random.default_rng(sum(map(ord, task)))
    prompts = [one for one in mini_tasks.sentences(POOL, 1, 1) if one.labels["part"] == task]
    found = []
    for change in (dict, lambda labels: mini_tasks.spoiled(labels, rng)):
        scenes = np.stack([mini_tasks.picture(change(one.labels), rng, 64) for one in prompts])
        soft = there_and_back(networks, scenes)  # type: ignore[arg-type]
        seen = eye.detect(soft)  # type: ignore[attr-defined]
        verdicts = [judge(wanted_of(p.labels), s, 0.0).correct for p, s in zip(prompts, seen, strict=True)]
        found.append(np.array(verdicts))
    return found[0], found[1]


def calibration_composition() -> str:
    """Return the tables of the six tasks, and of what is planted in the world."""
    _, (definition,) = from_overrides("checkpoints=[512-base]")
    networks, eye, rows = load(definition, torch.device("cpu"), torch.float32), detector(), [HEAD]
    for task in TASKS:
        right, wrong = answers(task, networks, eye)
        rows += table(task, singles(right), singles(wrong), n=20, tests=100)
    return "\n".join([*rows, "", planted()])


def planted() -> str:
    """Return rates whose truth is planted in the world: counts of objects, in the data set's own images."""
    scenes, eye = held_out_scenes(), detector()
    seen: list[list[Found]] = eye.detect(np.stack([render(one)[0] for one in scenes]))  # type: ignore[attr-defined]
    rows = ["| in the data set's own images | planted | found |", "|---|---|---|"]
    for n in (1, 2, 3):
        truth = np.array([len(place_objects(one)) == n for one in scenes])
        found = np.array([len(one) == n for one in seen])
        errors = confused(found[:256][truth[:256]], found[:256][~truth[:256]])
        row = rate_row("r", found[256:], np.arange(256), component=eye, errors=errors)
        rows.append(
            f"| images of {n} objects, errors from the other half | {truth[256:].mean():.3f} | "
            f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}] |"
        )
    return "\n".join(rows)
