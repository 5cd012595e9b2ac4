"""Inception Score: how sure a classifier is of each image, and how evenly the images fill the classes.

exp of the mean Kullback-Leibler divergence of an image's class probabilities from their mean over all images
(Salimans et al. 2016, section 4).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_varied_features
from sd2eval.metrics._pairs import blocks
from sd2eval.statistics import Estimate

Array = NDArray[np.float64]

_SUM_TOLERANCE = 1e-2  # half precision rounds each of a thousand probabilities


def inception_score(
    values: ArrayLike,
    given: Literal["logits", "probabilities"] = "logits",
    splits: int = 1,
    seed: int = 2020,
) -> Estimate:
    """Return the Inception Score with each sample's influence, the exact jackknife.

    Splits are those of torch-fidelity: shuffled by NumPy's legacy generator with `seed`, cut into equal parts
    whose scores are averaged. With one split, the default, there is nothing to shuffle. The value is biased
    downward, the more the smaller n / splits is against the number of classes: compare equal n and splits
    only.

    Args:
        values: of each image, shape [n, classes], n >= 2 x splits.
        given: whether they are logits or probabilities, which are divided by their sum.
        splits: 1 or more; the original code uses 10.
        seed: of the shuffle before splitting, 0..2^32 - 1.

    Returns:
        Value in 1..classes.

    Raises:
        InputError: not [n, classes], not finite, all rows equal; probabilities below 0 or that do not add up
            to 1; fewer than two samples a split.
    """
    x = as_varied_features(values, given)
    if splits < 1 or len(x) < 2 * splits:
        raise InputError(f"{given}: {splits} splits need at least 2 rows each, got {len(x)}")
    p = _softmax(x) if given == "logits" else _normalised(x)
    order = np.arange(len(p)) if splits == 1 else np.random.RandomState(seed).permutation(len(p))
    edges = [i * len(p) // splits for i in range(splits + 1)]
    scores, influence = np.zeros(splits), np.zeros(len(p))
    for i in range(splits):
        part = order[edges[i] : edges[i + 1]]
        scores[i], without = _leave_one_out(p[part])
        moved = (len(part) - 1) * (without.mean() - without)
        influence[part] = moved * len(p) / len(part) / splits
    return Estimate(float(scores.mean()), influence)


def _leave_one_out(p: Array) -> tuple[float, Array]:
    """Return the score of probabilities [n, classes] and the scores without each row, [n]."""
    n = len(p)
    total = p.sum(axis=0)
    certainty, entropy_without = np.empty(n), np.empty(n)
    for rows in blocks(n):
        certainty[rows] = -_entropy(p[rows])
        rest = np.clip(total - p[rows], 0, None) / (n - 1)  # round-off may fall below 0
        entropy_without[rows] = _entropy(rest)
    score = np.exp(certainty.mean() + _entropy(total[None] / n)[0])
    without: Array = np.exp((certainty.sum() - certainty) / (n - 1) + entropy_without)
    return float(score), without


def _entropy(p: Array) -> Array:
    """Return -sum p log p of each row, with 0 log 0 = 0."""
    logarithms = np.log(p, out=np.zeros_like(p), where=p > 0)
    entropy: Array = -(p * logarithms).sum(axis=1)
    return entropy


def _softmax(logits: Array) -> Array:
    raised: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    raised /= raised.sum(axis=1, keepdims=True)
    return raised


def _normalised(p: Array) -> Array:
    sums = p.sum(axis=1, keepdims=True)
    wrong = (p < 0).any(axis=1) | (np.abs(sums[:, 0] - 1) > _SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"probabilities: row {row} has minimum {p[row].min():g} and sum {sums[row, 0]:g}; if these are "
            "logits, say given='logits'"
        )
    shares: Array = p / sums
    return shares
