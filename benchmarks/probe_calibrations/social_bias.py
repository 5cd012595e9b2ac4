"""Social bias: rendered scenes of one thing, of which a share p is red and the rest of the other colours.

The whole procedure is repeated: identity scenes are clustered, clusters read as colours, errors counted on
scenes held out. Then the slope of shown over known shares, for subjects of which the truth rises by 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from calibrating import PROPERTY_RATES, Case, repeat
from probe_calibrations import _pools

from sd2eval.mini.world import COLOURS
from sd2eval.probes.clusters import make_clusters, read_clusters
from sd2eval.probes.entropies import bits_of, entropy
from sd2eval.probes.portrait_rows import ends_of_mean
from sd2eval.probes.proportions import Share
from sd2eval.probes.shares import ClassErrors, ClassShare, corrected, corrected_values
from sd2eval.probes.slopes import mean_above, slope_of_shares
from sd2eval.statistics import interval

NAMES = tuple(COLOURS)
POOL, IDENTITY, N, CLUSTERINGS, CLUSTERS = 150, 12, 100, 200, 12
SUBJECTS, PORTRAITS = 60, 20


class Ends(NamedTuple):
    value: float
    stderr: float
    low: float
    high: float


def calibration_social_bias() -> list[Case]:
    clear, noisy = _made(0.0), _made(0.9)
    return [
        *_shares("clear images", clear),
        *_shares("noisy images", noisy),
        *_slopes("slope, noisy images", noisy),
        _above("mean above known shares, noisy images", noisy),
        *_entropies(),
    ]


def _made(noise: float) -> list[tuple[ClassErrors, np.ndarray]]:
    """Return for each clustering its errors and its answers to the other scenes, [K, POOL - IDENTITY]."""
    rng = np.random.default_rng(2)
    pools = []
    for colour in NAMES:
        wanted = _pools.scenes(
            POOL, lambda scene, colour=colour: scene.kind == "single" and scene.items[0].colour == colour
        )
        found = _pools.features("score", _pools.images(wanted))
        pools.append(found + noise * found.std() * rng.normal(size=found.shape))
    made = []
    for _ in range(CLUSTERINGS):
        mixed = [pool[rng.permutation(POOL)] for pool in pools]
        known = np.concatenate([pool[:IDENTITY] for pool in mixed])
        terms = [colour for colour in NAMES for _ in range(IDENTITY)]
        clusters = make_clusters(known, terms, CLUSTERS)
        reading = read_clusters(clusters, known, terms, terms)
        made.append(
            (reading.errors, np.stack([reading.answers(clusters, pool[IDENTITY:]) for pool in mixed]))
        )
    return made


def _shares(what: str, made: list[tuple[ClassErrors, np.ndarray]]) -> list[Case]:
    error = np.mean([errors.error for errors, _ in made])
    cases = []
    for p in PROPERTY_RATES:

        def draw(rng: np.random.Generator, p: float = p) -> ClassShare:
            errors, answers = made[rng.integers(CLUSTERINGS)]
            return corrected(_answers(rng, answers, p, N), errors, of=NAMES[:1])[0]

        cases.append(repeat(f"share of red, {what} (errors {error:.1%})", p, N, draw))
    return cases


def _answers(rng: np.random.Generator, answers: np.ndarray, p: float, n: int) -> np.ndarray:
    others = (1 - p) / (len(NAMES) - 1)
    colour = rng.choice(len(NAMES), size=n, p=[p, *[others] * (len(NAMES) - 1)])
    seen: np.ndarray = answers[colour, rng.integers(answers.shape[1], size=n)]
    return seen


def _slopes(what: str, made: list[tuple[ClassErrors, np.ndarray]]) -> list[Case]:
    known = np.linspace(0.05, 0.95, SUBJECTS)

    def draw(rng: np.random.Generator) -> Ends:
        errors, answers = made[rng.integers(CLUSTERINGS)]
        shown = [corrected_values(_answers(rng, answers, p, PORTRAITS), errors) for p in known]
        found = slope_of_shares(known, shown, 0, errors)
        return Ends(*found[:2], *interval(found.value, found.stderr, dof=found.dof))

    return [repeat(what, 1.0, SUBJECTS * PORTRAITS, draw, 1000)]


def _above(what: str, made: list[tuple[ClassErrors, np.ndarray]]) -> Case:
    """Five subjects that show what is known; of the last two fewer than half of the portraits are decided."""
    known, sizes = (0.1, 0.1, 0.5, 0.9, 0.9), (20, 20, 20, 8, 8)
    mean = sum(known) / len(known)

    def draw(rng: np.random.Generator) -> Ends:
        errors, answers = made[rng.integers(CLUSTERINGS)]
        shown = [_answers(rng, answers, p, n) for p, n in zip(known, sizes, strict=True)]
        decided = [one[one < len(NAMES)] for one in shown]
        found = mean_above(known, decided, 0, errors)
        n = sum(len(one) for one in decided)
        low, high = ends_of_mean(found.value + mean, found.stderr, n, found.dof)
        return Ends(*found[:2], low - mean, high - mean)

    return repeat(what, 0.0, sum(sizes), draw)


def _entropies() -> list[Case]:
    """Of the numbers of portraits and clusters of both families, and of many portraits."""
    cases = []
    for n, count in ((20, 24), (25, CLUSTERS), (N, CLUSTERS)):
        places = np.arange(count)
        weights = {
            "all alike": np.ones(count),
            "each 0.7 of the one before": 0.7**places,
            "60% in one": np.where(places == 0, 0.6, 0.4 / (count - 1)),
            "1, 1/2, 1/3 ...": 1 / (1 + places),
        }
        cases += [_entropy(what, found / found.sum(), n) for what, found in weights.items()]
    return cases


def _entropy(what: str, shares: np.ndarray, n: int) -> Case:
    names = [str(one) for one in range(len(shares))]

    def draw(rng: np.random.Generator) -> Share:
        return entropy([names[one] for one in rng.choice(len(shares), size=n, p=shares)], names)

    return repeat(f"entropy of {len(shares)} clusters, {what}", bits_of(shares), n, draw)
