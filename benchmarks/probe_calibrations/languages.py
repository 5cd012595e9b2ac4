"""Languages: a share p of the pictures shows another scene, as where a language is not understood."""

from __future__ import annotations

import numpy as np
from calibrating import PROPERTY_RATES, Case, repeat
from probe_calibrations import _pools

from sd2eval.mini.captions import translate
from sd2eval.probes.base import Row
from sd2eval.probes.declared.languages import Scored, kept, loss, scored
from sd2eval.probes.means import mean_interval
from sd2eval.statistics import Estimate, standard_error

POOL = 1500


def row(one: Estimate) -> Row:
    low, high = mean_interval(one)
    stderr = standard_error(one.influence)
    return Row(
        metric="loss", value=one.value, stderr=stderr, low=low, high=high, n=one.n, direction="lower", unit=""
    )


def calibration_languages() -> list[Case]:
    scenes = _pools.scenes(POOL)
    texts = _pools.extractor("score").texts([translate(scene, "en") for scene in scenes])
    images = _pools.features("score", _pools.images(scenes)).astype(np.float32)
    right = scored(images, texts)
    wrong = scored(np.roll(images, 1, axis=0), texts)
    apart = right.own - wrong.own
    gain = (right.own - right.others).mean()
    cases = []
    for n in (60, 100):
        for p in PROPERTY_RATES:

            def draw(rng: np.random.Generator, n: int = n, p: float = p) -> tuple[Scored, Scored]:
                chosen, lost = rng.integers(POOL, size=n), rng.random(n) < p
                english = Scored(right.own[chosen], right.others[chosen])
                other = (
                    np.where(lost, getattr(wrong, key)[chosen], getattr(right, key)[chosen])
                    for key in ("own", "others")
                )
                return english, Scored(*other)

            left = 1 - p + p * float((wrong.own - wrong.others).mean() / gain)
            cases.append(
                repeat("loss", p * float(apart.mean()), n, lambda rng, draw=draw: row(loss(*draw(rng))))
            )
            cases.append(repeat("kept", left, n, lambda rng, draw=draw: row(kept(*draw(rng)))))
    return cases
