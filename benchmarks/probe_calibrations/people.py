"""Calibration of `people`: a category in rendered scenes, and the difference of two Frechet distances.

    OMP_NUM_THREADS=1 python benchmarks/probe_calibration.py people

Faces of real photographs are a pool too where ../shared/coco has them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from probe_calibrations._repeating import HEAD, singles, table

from sd2eval.checkpoints import load
from sd2eval.config.probing import from_overrides
from sd2eval.extractors import load_extractor
from sd2eval.images import load_rgb
from sd2eval.metrics import METRICS
from sd2eval.metrics.reference import Reference
from sd2eval.mini.render import render
from sd2eval.mini.world import HELD_OUT_SEED, draw_scene
from sd2eval.probes import person_truth
from sd2eval.probes.components import face_detector, mini_detector
from sd2eval.probes.declared.autoencoder import there_and_back
from sd2eval.probes.measured_rates import degrees
from sd2eval.statistics import interval, standard_error

COCO = Path(__file__).resolve().parents[3] / "shared" / "coco"
CPU = torch.device("cpu")
FIRST, POOL = 10_000, 3_000
"""Held-out scenes that no other part of the study uses."""
CATEGORY = "ball"


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Return rendered scenes, uint8 [POOL, 64, 64, 3], and which hold the category."""
    drawn = [draw_scene(HELD_OUT_SEED, FIRST + i) for i in range(POOL)]
    there = np.array([any(item.shape == CATEGORY for item in one.items) for one in drawn])
    return np.stack([render(one)[0] for one in drawn]), there


def calibration_people() -> str:
    """Return the tables of the world's category after the autoencoder, of faces, and of differences."""
    config, (definition,) = from_overrides("checkpoints=[512-base]")
    images, there = scenes()
    soft = there_and_back(load(definition, CPU, torch.float32), images[:1000])
    eye = mini_detector.load(config.components["mini_detector"], CPU)
    found = np.array([any(one.label == CATEGORY for one in many) for many in eye.detect(soft)])
    kept = there[:1000]
    rows = table(f"'{CATEGORY}' in scenes", singles(found[kept]), singles(found[~kept]), n=73, tests=194)
    parts = ["\n".join([HEAD, *rows]), differences()]
    return "\n\n".join([*parts, faces(COCO)] if COCO.is_dir() else parts)


def faces(coco: Path) -> str:
    """Return the table of face rates on real photographs, and what the detector misses."""
    config, _ = from_overrides()
    eye = face_detector.load(config.components["face_detector"], CPU)
    truths = person_truth.marked(next(coco.glob("*/person_keypoints_val2017.json")))
    truths = [one for one in truths if (coco / "val2017" / one.file).is_file()]
    seen = [eye.detect(load_rgb(coco / "val2017" / one.file)[None])[0] for one in truths]
    errors = person_truth.face_errors(truths, seen)
    hits = [person_truth.matched(one, boxes) for one, boxes in zip(truths, seen, strict=True)]
    wide = np.concatenate([one.faces[:, 2] for one in truths])
    flat = np.concatenate(hits)
    lines = [
        f"{len(truths)} photographs; faces found: {flat.sum()} of {len(flat)}; of those with at least "
        f"{person_truth.NARROW:g} px between the eyes: {flat[wide >= person_truth.NARROW].sum()} of "
        f"{(wide >= person_truth.NARROW).sum()}; photographs with such a face that have one found: "
        f"{errors.hits:g} of {errors.positives:g}; photographs without people that have one found: "
        f"{errors.false_alarms:g} of {errors.negatives:g}.",
        "",
        HEAD,
    ]
    right = np.arange(int(errors.positives)) < errors.hits
    wrong = np.arange(int(errors.negatives)) < errors.false_alarms
    name = "a face in real photographs"
    return "\n".join([*lines, *table(name, singles(right), singles(wrong), n=100, tests=100)])


def differences(n: int = 73, m: int = 194, repetitions: int = 300) -> str:
    """Return how often the interval of a difference of distances covers its mean at these numbers."""
    config, (definition,) = from_overrides("checkpoints=[512-base]")
    extractor = load_extractor(config.protocol.distance, CPU)
    images, there = scenes()
    assert extractor.images is not None
    real = np.asarray(extractor.images(images)["features"], dtype=np.float64)
    soft = there_and_back(load(definition, CPU, torch.float32), images)
    generated = np.asarray(extractor.images(soft)["features"], dtype=np.float64)
    metric, rng = METRICS["fd_mini"], np.random.default_rng(0)
    kinds = [np.flatnonzero(there), np.flatnonzero(~there)]
    references = [Reference(real[rng.choice(kind, m, replace=False)]) for kind in kinds]
    values, stderrs, dofs = [], [], []
    for _ in range(repetitions):
        found = [
            metric.estimate(generated[rng.choice(kind, n)], reference)
            for kind, reference in zip(kinds, references, strict=True)
        ]
        both = [standard_error(one.influence) for one in found]
        values.append(found[0].value - found[1].value)
        stderrs.append(np.hypot(*both))
        dofs.append(degrees(both, [n, n]))
    mean = float(np.mean(values))
    ends = [interval(*one, dof=dof) for *one, dof in zip(values, stderrs, dofs, strict=True)]
    covered = np.mean([low <= mean <= high for low, high in ends])
    return (
        f"Difference of two Frechet distances, {n} generated and {m} real images of either kind, "
        f"{repetitions} repetitions: mean {mean:+.3f}, spread {np.std(values):.3f}, mean standard error "
        f"{np.mean(stderrs):.3f}; the interval covers that mean in {covered:.1%}."
    )
