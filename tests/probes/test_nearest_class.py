"""Which known group an image is nearest to, where what differs within groups is larger than between them."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.probes.nearest_class import learn, within_units

NAMES = ("x", "y", "z")


def images(rng: np.random.Generator, per_class: int, d: int = 12, apart: float = 4.0, nuisance: float = 30.0):
    """Three groups, apart in two directions of unit spread; a third direction has a large spread in each."""
    y = np.repeat(np.arange(3), per_class)
    x = rng.normal(size=(len(y), d))
    x[:, :2] += apart * np.array([[0, 0], [1, 0], [0, 1]])[y]
    x[:, 2] *= nuisance
    return x, y


def test_what_varies_within_a_group_counts_little() -> None:
    rng = np.random.default_rng(0)
    x, y = images(rng, 30)
    later, truth = images(rng, 200)
    plain = np.array([x[y == k].mean(axis=0) for k in range(3)])
    nearest = np.square(later[:, None] - plain).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest != truth) > 0.2
    groups = learn(x, [NAMES[k] for k in y])
    answers = groups.answers(later)
    decided = answers < 3
    assert np.mean(answers[decided] != truth[decided]) < 0.06
    assert decided.mean() > 0.8


def test_the_counted_error_is_that_of_later_images() -> None:
    rng = np.random.default_rng(1)
    counted, later = [], []
    for _ in range(15):
        x, y = images(rng, 25, apart=1.5)
        groups = learn(x, [NAMES[k] for k in y], sure=0.0, far=1.0)
        z, truth = images(rng, 100, apart=1.5)
        answers = groups.answers(z)
        counted.append(groups.errors.error)
        later.append(np.mean(answers[answers < 3] != truth[answers < 3]))
    assert np.mean(later) > 0.15
    assert np.mean(counted) == pytest.approx(np.mean(later), abs=0.04)


def test_names_without_meaning_have_the_error_of_guessing() -> None:
    """Errors counted on the images that were learnt from would be small: 60 numbers fit 90 images."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(90, 60))
    groups = learn(x, [NAMES[k] for k in rng.permutation(np.arange(90) % 3)], sure=0.0, far=1.0)
    assert groups.errors.error == pytest.approx(2 / 3, abs=0.17)


def test_the_scale_of_the_features_means_nothing() -> None:
    rng = np.random.default_rng(3)
    x, y = images(rng, 20)
    later, _ = images(rng, 50)
    known = [NAMES[k] for k in y]
    assert (learn(x, known).answers(later) == learn(1e4 * x, known).answers(1e4 * later)).all()


def test_far_and_ambiguous_images_are_undecided() -> None:
    rng = np.random.default_rng(4)
    x, y = images(rng, 40, apart=6.0, nuisance=1.0)
    groups = learn(x, [NAMES[k] for k in y])
    centres = np.array([x[y == k].mean(axis=0) for k in range(3)])
    assert groups.answers(centres).tolist() == [0, 1, 2]
    assert groups.answers(centres + 100).tolist() == [3, 3, 3]
    assert groups.answers((centres[:1] + centres[1:2]) / 2).tolist() == [3]


def test_units_have_unit_spread_within_groups() -> None:
    rng = np.random.default_rng(6)
    x, y = images(rng, 3000)
    turned = x @ within_units(x, y)
    residual = turned - np.array([turned[y == k].mean(axis=0) for k in range(3)])[y]
    assert np.cov(residual.T) == pytest.approx(np.eye(12), abs=0.12)


def test_too_few_images_are_refused() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(4, 3))
    with pytest.raises(InputError, match="at least 2 groups"):
        learn(x, ["x", "x", "x", "x"])
    with pytest.raises(InputError, match="at least 2 known images"):
        learn(x, ["x", "x", "x", "y"])
    with pytest.raises(InputError, match="all images of a group are equal"):
        learn(np.repeat(x[:2], 3, axis=0), ["x", "x", "x", "y", "y", "y"])


def test_groups_that_are_told_alike_add_up() -> None:
    """Six countries, three of a region look alike: which one is a guess, the region is not."""
    rng = np.random.default_rng(8)
    y = np.arange(180) % 6
    x = rng.normal(size=(180, 8))
    x[:, 0] += 8.0 * (y >= 3)
    known = [f"country {k}" for k in y]
    regions = {f"country {k}": "east" if k >= 3 else "west" for k in range(6)}
    countries, told = learn(x, known), learn(x, known, into=regions)
    assert countries.errors.undecided > 0.8
    assert told.names == ("west", "east")
    assert told.errors.undecided < 0.1
    assert told.errors.error < 0.02
    assert told.answers(np.array([[0.0] * 8, [8.0] + [0.0] * 7])).tolist() == [0, 1]
