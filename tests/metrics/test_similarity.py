import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics.similarity import mean_cosine
from sd2eval.statistics import standard_error


def test_known_angles():
    images = np.array([[2.0, 0], [0, 5], [1, 1]])
    texts = np.array([[3.0, 0], [0, -1], [1, 0]])
    estimate = mean_cosine(images, texts)
    cosines = np.array([1, -1, np.sqrt(0.5)])
    assert estimate.value == pytest.approx(cosines.mean(), rel=1e-15)
    np.testing.assert_allclose(estimate.influence, cosines - cosines.mean(), atol=1e-15)


def test_negative_cosines_are_not_floored():
    assert mean_cosine(np.ones((2, 3)), -np.ones((2, 3))).value == pytest.approx(-1)


def test_length_of_embeddings_does_not_matter(rng):
    images, texts = rng.normal(size=(2, 20, 8))
    lengths = rng.uniform(0.1, 50, (20, 1))
    assert mean_cosine(lengths * images, texts / lengths).value == pytest.approx(
        mean_cosine(images, texts).value
    )


def test_symmetric_and_paired(rng):
    images, texts = rng.normal(size=(2, 20, 8))
    assert mean_cosine(images, texts).value == pytest.approx(mean_cosine(texts, images).value)
    assert mean_cosine(images, images).value == pytest.approx(1)
    assert mean_cosine(images, texts[::-1]).value != pytest.approx(mean_cosine(images, texts).value)


def test_standard_error_is_that_of_a_mean(rng):
    images, texts = rng.normal(size=(2, 50, 8))
    estimate = mean_cosine(images, texts)
    cosines = estimate.influence + estimate.value
    assert standard_error(estimate.influence) == pytest.approx(cosines.std(ddof=1) / np.sqrt(50), rel=1e-12)


def test_a_zero_embedding_is_named(rng):
    images, texts = rng.normal(size=(2, 5, 3))
    texts[3] = 0
    with pytest.raises(InputError, match="text embeddings: row 3 is zero"):
        mean_cosine(images, texts)


def test_unequal_counts_are_refused(rng):
    with pytest.raises(InputError, match="got 5 image and 4 text"):
        mean_cosine(rng.normal(size=(5, 3)), rng.normal(size=(4, 3)))
