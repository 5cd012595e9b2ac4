"""Agreement of an image with its caption: the cosine of their embeddings (CLIP score)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.errors import InputError
from sd2eval.metrics._checks import as_features, directions, require_same_width
from sd2eval.statistics import Estimate


def mean_cosine(images: ArrayLike, texts: ArrayLike) -> Estimate:
    """Return the mean cosine of image i's and caption i's embedding, with each pair's influence.

    This is the raw cosine of the model card's figure: not multiplied by 100 and not floored at 0, which is
    what others call CLIPScore (Hessel et al. 2021, eq. 1, uses 2.5 x max(cosine, 0)).

    Args:
        images: image embeddings, shape [n, d], n >= 2, any length.
        texts: text embeddings of the same captions in the same order, shape [n, d].

    Returns:
        Value in -1..1.

    Raises:
        InputError: see `cosines`.
    """
    each = cosines(images, texts)
    value = float(each.mean())
    return Estimate(value, each - value)


def cosines(images: ArrayLike, texts: ArrayLike) -> NDArray[np.float64]:
    """Return the cosine of image i's and caption i's embedding, [n]; arguments as of `mean_cosine`.

    Raises:
        InputError: not [n, d], not finite, shapes differ, or an embedding is zero and has no direction.
    """
    image = as_features(images, "image embeddings")
    text = as_features(texts, "text embeddings")
    require_same_width(image, text.shape[1], "image embeddings", "text embeddings")
    if len(image) != len(text):
        raise InputError(f"one caption per image: got {len(image)} image and {len(text)} text embeddings")
    each: NDArray[np.float64] = (
        directions(image, "image embeddings") * directions(text, "text embeddings")
    ).sum(axis=1)
    return each
