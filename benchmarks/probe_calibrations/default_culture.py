"""Default culture: rendered scenes of which a share p is in the meadow and the rest in the other places.

The whole procedure is repeated: places are learnt from 20 marked scenes each, their errors counted by leaving
scenes out. "Noisy": features with noise of their own size, so that the classifier errs.
"""

from __future__ import annotations

import numpy as np
from calibrating import PROPERTY_RATES, Case, repeat
from probe_calibrations import _pools

from sd2eval.mini.world import PLACES
from sd2eval.probes.nearest_class import Groups, learn
from sd2eval.probes.shares import ClassShare, corrected

POOL, MARKED, N, CLASSIFIERS = 300, 20, 90, 40


def calibration_default_culture() -> list[Case]:
    return [
        *_cases("clear images", 0.0, 1),
        *_cases("noisy images", 1.3, 1),
        *_cases("clear images, three alike per scene", 0.0, 3),
    ]


def _cases(what: str, noise: float, alike: int) -> list[Case]:
    rng = np.random.default_rng(1)
    pools = []
    for place in PLACES:
        shown = _pools.images(
            _pools.scenes(POOL, lambda scene, place=place: scene.place == place and scene.kind == "single")
        )
        found = _pools.features("score", shown)
        pools.append(found + noise * found.std() * rng.normal(size=found.shape))
    learnt = [_learn(pools, rng) for _ in range(CLASSIFIERS)]
    errors = np.mean([groups.errors.error for groups, _ in learnt])
    cases = []
    for p in PROPERTY_RATES:
        shares = np.array([p, *[(1 - p) / (len(PLACES) - 1)] * (len(PLACES) - 1)])

        def draw(rng: np.random.Generator, shares: np.ndarray = shares) -> ClassShare:
            groups, answers = learnt[rng.integers(CLASSIFIERS)]
            # Of the scenes, some are all in one place: what they show is not independent.
            place = rng.choice(len(PLACES), size=N // alike, p=shares).repeat(alike)
            own = rng.choice(len(PLACES), size=N, p=shares)
            place = np.where(rng.random(N) < (0.5 if alike > 1 else 1.0), place, own)
            seen = answers[place, rng.integers(MARKED, POOL, size=N)]
            scenes = np.arange(N // alike).repeat(alike) if alike > 1 else None
            return corrected(seen, groups.errors, scenes, of=PLACES[:1])[0]

        cases.append(repeat(f"{what} (errors {errors:.1%})", p, N, draw))
    return cases


def _learn(pools: list[np.ndarray], rng: np.random.Generator) -> tuple[Groups, np.ndarray]:
    """Return places learnt from the first scenes of shuffled pools, and all answers, [K, POOL]."""
    mixed = [pool[rng.permutation(POOL)] for pool in pools]
    marked = np.concatenate([pool[:MARKED] for pool in mixed])
    groups = learn(marked, [place for place in PLACES for _ in range(MARKED)])
    return groups, np.stack([groups.answers(pool) for pool in mixed])
