from __future__ import annotations

import numpy as np
import pytest

from sd2eval.masks import mask

COUNT = 1000


def coverages(seed: int = 0, size: int = 64) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([mask(seed, caption, size).mean() for caption in range(COUNT)])


def test_mask_is_a_pure_function_of_its_key() -> None:
    first = mask(3, 42, 64)
    assert first.dtype == np.bool_
    assert first.shape == (64, 64)
    mask(3, 43, 64)  # what was drawn in between does not matter
    np.random.seed(0)  # nor does numpy's global state
    assert np.array_equal(mask(3, 42, 64), first)
    others = [mask(seed, caption, 64) for seed, caption in ((3, 40), (3, 41), (4, 42), (34, 2))]
    assert not any(np.array_equal(other, first) for other in others)


def test_a_quarter_is_masked_everywhere_and_the_rest_never() -> None:
    share = (coverages() == 1).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / COUNT)


def test_coverage_of_the_others() -> None:
    """Large masks, as the name says: a third of the image on average, from a scratch to most of it."""
    partial = coverages()
    partial = partial[partial < 1]
    assert abs(partial.mean() - 0.353) < 0.03
    assert partial.min() < 0.02
    assert partial.max() > 0.7


def test_half_of_the_others_are_boxes_inside_the_margin() -> None:
    """Only boxes keep 10 of 512 pixels clear at the top and left; most strokes do not touch them either."""
    size = 512
    clear = []
    for caption in range(200):
        drawn = mask(0, caption, size)
        if drawn.all():
            continue
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        clear.append(rows[0] >= 10 and columns[0] >= 10 and len(rows) >= 75 and len(columns) >= 75)
    assert 0.45 < np.mean(clear) < 0.75


@pytest.mark.parametrize("size", [64, 96, 256, 768])
def test_same_mask_at_every_size(size: int) -> None:
    nearest = ((np.arange(size) + 0.5) * 512 / size).astype(int)
    same = [
        (mask(0, caption, size) == mask(0, caption, 512)[np.ix_(nearest, nearest)]).mean()
        for caption in range(40)
    ]
    assert np.mean(same) > 0.985
    assert min(same) > 0.95


@pytest.mark.parametrize("size", [16, 17, 31, 64])
def test_something_is_always_painted(size: int) -> None:
    assert all(mask(1, caption, size).any() for caption in range(300))


def test_size_has_a_lower_end() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        mask(0, 0, 15)


def test_the_published_draw_does_not_change() -> None:
    """Other masks would be other conditioning; a hundredth is left for Pillow's line drawing."""
    expected = [1.0, 0.149, 0.037, 0.004, 0.251, 0.343, 1.0, 1.0, 0.263, 0.086, 0.248, 1.0]
    assert [float(mask(0, caption, 512).mean()) for caption in range(12)] == pytest.approx(expected, abs=0.01)
