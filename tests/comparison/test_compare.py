"""The numbers of `compare`: by simulation on features with known truth, and against SciPy's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.stats

from sd2eval.comparison.compare import compare_cells
from sd2eval.comparison.paired_cells import PairedCell
from sd2eval.metrics import METRICS, Reference
from sd2eval.plan import Cell
from sd2eval.statistics import Estimate, benjamini_hochberg, detectable, holm

ASKED = {"fd_mini", "clip_mini"}


def mean_of(x: np.ndarray) -> Estimate:
    return Estimate(float(np.mean(x)), x - np.mean(x))


def cell(metric: str, scale: float, a: Estimate, b: Estimate, name: str = "model") -> PairedCell:
    pair = Cell(name, scale), Cell(name, scale)
    return PairedCell(pair, METRICS[metric], a, b, np.ones(a.n, dtype=bool), 0)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Symmetric about 0, so that opposite shifts are equally far from it."""
    half = np.random.default_rng(0).normal(size=(200, 4)) * np.arange(1, 5) ** -0.5
    return Reference(np.concatenate([half, -half]))


@dataclass
class World:
    """Draws both sides of an experiment: captions in clusters, shared noise, features of four dimensions."""

    reference: Reference
    rng: np.random.Generator
    images: int = 40

    def experiment(self, shift_a: float, shift_b: float) -> tuple[list[PairedCell], np.ndarray]:
        groups = np.repeat(np.arange(self.images), self.rng.integers(1, 4, self.images))
        shared = self.rng.normal(size=(self.images, 4))[groups] + self.rng.normal(size=(len(groups), 4))
        text = np.tile([1.0, 2.0, 0.0, 0.0], (len(groups), 1))
        cells = []
        for scale in (1.5, 3.0):
            a, b = (self.features(groups, shared) + shift for shift in (shift_a, shift_b))
            distances = [METRICS["fd_mini"].estimate(x, self.reference) for x in (a, b)]
            scores = [METRICS["clip_mini"].estimate(x, text) for x in (a, b)]
            cells += [cell("fd_mini", scale, *distances), cell("clip_mini", scale, *scores)]
        return cells, groups

    def features(self, groups: np.ndarray, shared: np.ndarray) -> np.ndarray:
        own = self.rng.normal(size=(self.images, 4))[groups] + self.rng.normal(size=(len(groups), 4))
        return (shared + own) / 2 * np.arange(1, 5) ** -0.5


REPETITIONS = 1000
AT_MOST = scipy.stats.binom.ppf(0.999, REPETITIONS, 0.05)
"""More rejections than this have a chance of 1 in 1,000 where each has one of 5%."""


@pytest.mark.parametrize("correction", ["holm", "fdr"])
def test_without_a_difference_a_verdict_is_given_in_at_most_5_percent(
    reference: Reference, correction: str
) -> None:
    world = World(reference, np.random.default_rng(1))
    wrong = 0
    for _ in range(REPETITIONS):
        rows, _ = compare_cells(*world.experiment(0.2, 0.2), ASKED, correction)
        wrong += any(row.verdict != "open" for row in rows)
    assert wrong <= AT_MOST


def test_uncorrected_a_single_comparison_errs_in_about_5_percent(reference: Reference) -> None:
    world = World(reference, np.random.default_rng(2))
    p = np.array(
        [
            [row.p for row in compare_cells(*world.experiment(0.2, 0.2), ASKED)[0]]
            for _ in range(REPETITIONS)
        ]
    )  # fmt: skip
    assert ((p < 0.05).sum(axis=0) <= AT_MOST).all()
    clip = p[:, 3:]  # means: not rarer than it says either
    assert ((clip < 0.05).sum(axis=0) >= scipy.stats.binom.ppf(0.001, REPETITIONS, 0.05)).all()


def test_equal_distances_of_different_distributions_are_no_difference(reference: Reference) -> None:
    """Shifted to opposite sides of a symmetric reference: other images, the same distance."""
    world = World(reference, np.random.default_rng(3))
    p = [compare_cells(*world.experiment(0.3, -0.3), ASKED)[0][0].p for _ in range(REPETITIONS)]
    assert sum(value < 0.05 for value in p) <= AT_MOST


def test_a_difference_is_found_more_often_with_more_images(reference: Reference) -> None:
    found = []
    for images in (15, 60):
        world = World(reference, np.random.default_rng(4), images)
        verdicts = [compare_cells(*world.experiment(0.3, 0.0), {"fd_mini"})[0][0].verdict for _ in range(60)]
        found.append(verdicts.count("better"))
        assert "worse" not in verdicts
    assert found[0] < 0.6 * 60 < 0.9 * 60 < found[1]


def test_an_average_counts_an_image_once_however_many_scales() -> None:
    """Two scales are the paired t-test of each image's mean over them, not twice the evidence."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 12)), rng.normal(0.4, 1, size=(2, 12))
    cells = [cell("psnr", s, mean_of(a), mean_of(b)) for s, a, b in zip((1.5, 3.0), x, y, strict=True)]
    (average, *single), _ = compare_cells(cells, np.arange(12), {"psnr"})
    expected = scipy.stats.ttest_rel(y.mean(axis=0), x.mean(axis=0))
    assert average.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (average.low, average.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert [row.p for row in single] == pytest.approx(
        [scipy.stats.ttest_rel(b, a).pvalue for a, b in zip(x, y, strict=True)], rel=1e-9
    )


@pytest.mark.parametrize(("correction", "corrected"), [("holm", holm), ("fdr", benjamini_hochberg)])
def test_the_rows_of_the_sentence_share_half_of_the_error_rate(
    reference: Reference, correction: str, corrected: Callable[..., np.ndarray]
) -> None:
    cells, groups = World(reference, np.random.default_rng(6)).experiment(0.2, 0.0)
    rows, headline = compare_cells(cells, groups, ASKED, correction)
    assert [rows[index].metric for index in headline] == ["fd_mini", "clip_mini"]
    assert all(rows[index].cells == 2 for index in headline)
    for family in (headline, [index for index in range(len(rows)) if index not in headline]):
        expected = 2 * corrected([rows[index].p for index in family])
        assert [rows[index].p_corrected for index in family] == pytest.approx(np.minimum(expected, 1))
        hardest = [detectable(rows[index].stderr, 39, 0.05 / 2 / len(family)) for index in family]
        assert [rows[index].detectable for index in family] == pytest.approx(hardest)


def test_where_the_sentence_speaks_about_every_row_nothing_is_set_aside() -> None:
    rng = np.random.default_rng(7)
    estimates = [mean_of(rng.normal(size=8)) for _ in range(2)]
    (row,), headline = compare_cells([cell("psnr", 1.5, *estimates)], np.arange(8), {"psnr"})
    assert (headline, row.p_corrected) == ([0], row.p)


@pytest.mark.parametrize(
    ("metric", "higher", "verdict"),
    [("psnr", "b", "better"), ("psnr", "a", "worse"), ("lpips", "b", "worse"), ("lpips", "a", "better")],
)
def test_better_follows_the_direction_of_the_metric(metric: str, higher: str, verdict: str) -> None:
    low = np.random.default_rng(8).normal(size=20)
    values = {"a": low, "b": low + np.linspace(0.9, 1.1, 20)}
    if higher == "a":
        values = {"a": values["b"], "b": low}
    (row,), _ = compare_cells(
        [cell(metric, 1.5, mean_of(values["a"]), mean_of(values["b"]))], np.arange(20), {metric}
    )
    assert row.verdict == verdict
    assert np.sign(row.difference) == (1 if higher == "b" else -1)


def test_equal_images_are_identical_whatever_round_off_says() -> None:
    """Two machines give the same pixels features that differ in the last digits."""
    x = np.random.default_rng(9).normal(size=20)
    a, b = mean_of(x), mean_of(x + 1e-7 * np.linspace(0.9, 1.1, 20))
    (told,), _ = compare_cells([cell("psnr", 1.5, a, b)], np.arange(20), {"psnr"})
    assert (told.verdict, told.p < 0.05) == ("equal", True)
    same = replace(cell("psnr", 1.5, a, b), same=20)
    (row,), _ = compare_cells([same], np.arange(20), {"psnr"})
    assert (row.verdict, row.difference, row.p, row.p_corrected) == ("identical", 0, 1, 1)


@pytest.mark.parametrize(("moved", "verdict"), [(1e-6, "equal"), (-1e-6, "equal"), (0.01, "better")])
def test_a_difference_that_is_only_rounding_gets_no_verdict_however_sure_it_is(
    moved: float, verdict: str
) -> None:
    x = np.random.default_rng(10).normal(size=20)
    estimates = mean_of(x), mean_of(x + moved * np.linspace(0.9, 1.1, 20))
    (row,), _ = compare_cells([cell("psnr", 1.5, *estimates)], np.arange(20), {"psnr"})
    assert row.p_corrected < 1e-6
    assert row.verdict == verdict
    assert row.difference == pytest.approx(moved, rel=0.05)


def test_rounding_is_judged_by_the_whole_interval() -> None:
    """A small difference that is known badly is open, not equal."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=20)
    noise = rng.normal(size=20)
    estimates = mean_of(x), mean_of(x + 0.1 * (noise - noise.mean()) + 1e-6)
    (row,), _ = compare_cells([cell("psnr", 1.5, *estimates)], np.arange(20), {"psnr"})
    assert row.verdict == "open"
