"""The probability of being on the front, against cases that are known and against fresh studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sd2eval
import tests.test_report
from sd2eval import report
from sd2eval.errors import InputError
from sd2eval.front import COLUMNS, chances, front_table
from sd2eval.metrics import METRICS, Reference
from sd2eval.pareto import front, front_probability
from sd2eval.plan import Block
from sd2eval.records import Direction

DIRECTIONS: list[Direction] = ["lower", "higher"]  # a distance and a score
N = 200
ALONE = np.arange(N)  # every sample its own group


def effects(rng: np.random.Generator, cells: int, stderr: float = 1.0, *, shared: float = 0.0) -> np.ndarray:
    """Effects [cells, 2, N] of means with a standard error; a part of the variance is shared by all cells."""
    own = rng.normal(size=(cells, 2, N))
    common = rng.normal(size=(1, 2, N))
    samples = np.sqrt(1 - shared) * own + np.sqrt(shared) * common
    samples -= samples.mean(axis=2, keepdims=True)
    return stderr * samples / np.sqrt(N)


def test_certain_dominance_is_1_and_0() -> None:
    moved = effects(np.random.default_rng(0), 2, stderr=0.1)
    assert front_probability([[1.0, 5.0], [3.0, 2.0]], DIRECTIONS, moved, ALONE).tolist() == [1.0, 0.0]


def test_cells_far_apart_along_the_front_are_both_on_it() -> None:
    moved = effects(np.random.default_rng(0), 2, stderr=0.1)
    assert front_probability([[1.0, 2.0], [3.0, 5.0]], DIRECTIONS, moved, ALONE).tolist() == [1.0, 1.0]


def test_exchangeable_cells_are_about_equally_likely() -> None:
    """Of two cells in two independent objectives, each is dominated with probability 1/4."""
    moved = effects(np.random.default_rng(0), 2)
    found = front_probability(np.zeros((2, 2)), DIRECTIONS, moved, ALONE)
    assert found == pytest.approx([0.75, 0.75], abs=0.06)  # two finite samples are correlated a little


def test_one_objective_is_a_normal_probability() -> None:
    """Independent, one standard error each: the better of two is so with Phi(difference / sqrt(2))."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(2, N))
    raw -= raw.mean(axis=1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(raw @ raw.T), raw) * np.sqrt((N - 1) / N)
    found = front_probability([[0.0], [1.0]], ["lower"], white[:, None], ALONE)
    assert found == pytest.approx([0.7602, 0.2398], abs=0.015)


def test_what_cells_share_decides_nothing() -> None:
    """A small difference that is there in every sample is certain, however large the common error."""
    common = np.repeat(effects(np.random.default_rng(1), 1, stderr=5.0), 2, axis=0)
    points = [[1.0, 1.0], [1.01, 0.99]]
    assert front_probability(points, DIRECTIONS, common, ALONE).tolist() == [1.0, 0.0]
    apart = effects(np.random.default_rng(1), 2, stderr=5.0)
    assert front_probability(points, DIRECTIONS, apart, ALONE)[1] > 0.6


def test_equal_cells_stay_equal() -> None:
    moved = np.repeat(effects(np.random.default_rng(2), 1), 3, axis=0)
    moved[2] = effects(np.random.default_rng(3), 1)[0]
    found = front_probability([[1.0, 1.0], [1.0, 1.0], [1.5, 1.5]], DIRECTIONS, moved, ALONE)
    assert found[0] == found[1]
    twins = front_probability([[1.0, 1.0], [1.0, 1.0]], DIRECTIONS, moved[:2], ALONE)
    assert twins.tolist() == [1.0, 1.0]


def test_samples_of_one_group_are_drawn_together() -> None:
    """Five equal captions per image are worth one: the standard error is that of n / 5 samples."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 1, N // 5))
    moved = np.repeat(images - images.mean(axis=2, keepdims=True), 5, axis=2) / N
    grouped = front_probability([[0.0], [0.2]], ["lower"], moved, ALONE // 5)
    independent = front_probability([[0.0], [0.2]], ["lower"], moved, ALONE)
    as_images = front_probability([[0.0], [0.2]], ["lower"], 5 * moved[:, :, ::5], np.arange(N // 5))
    assert grouped == pytest.approx(as_images, abs=1e-9)
    assert independent[0] > grouped[0] + 0.05


def test_without_any_spread_it_is_the_front_itself() -> None:
    points = [[1.0, 2.0], [2.0, 1.0], [3.0, 5.0]]
    found = front_probability(points, DIRECTIONS, np.zeros((3, 2, N)), ALONE)
    assert found.tolist() == front(points, DIRECTIONS).astype(float).tolist()


def test_the_same_call_gives_the_same_numbers_and_no_cells_none() -> None:
    moved = effects(np.random.default_rng(4), 5)
    twice = [front_probability(np.zeros((5, 2)), DIRECTIONS, moved, ALONE) for _ in range(2)]
    assert twice[0].tolist() == twice[1].tolist()
    assert front_probability(np.zeros((0, 2)), DIRECTIONS, np.zeros((0, 2, N)), ALONE).shape == (0,)


@pytest.mark.parametrize(
    ("moved", "groups", "message"),
    [
        (np.zeros((2, 2, N - 1)), ALONE, r"effects of shape \[2, 2, 200\], got \[2, 2, 199\]"),
        (np.zeros((3, 2, N)), ALONE, r"got \[3, 2, 200\]"),
        (np.zeros((2, 2, N)), np.zeros(N), "at least 2 independent groups of samples, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(moved: np.ndarray, groups: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        front_probability(np.zeros((2, 2)), DIRECTIONS, moved, groups)


# Against fresh studies


def study(rng: np.random.Generator, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values [cells, 2] and effects of a study of N samples with unit standard errors, half of it shared."""
    samples = np.sqrt(N / 2) * (rng.normal(size=(*truth.shape, N)) + rng.normal(size=(1, 2, N)))
    means = samples.mean(axis=2)
    return truth + means, (samples - means[..., None]) / N


def test_said_half_the_time_it_is_so_in_about_half_of_repeated_studies() -> None:
    """Truths are drawn widely; what is said of one study is held against the truth and another study."""
    rng = np.random.default_rng(0)
    said, true, again = [], [], []
    for _ in range(500):
        truth = rng.uniform(-4, 4, size=(4, 2))
        values, moved = study(rng, truth)
        said.append(front_probability(values, DIRECTIONS, moved, ALONE, draws=400))
        true.append(front(truth, DIRECTIONS))
        again.append(front(study(rng, truth)[0], DIRECTIONS))
    claims, truths, repeats = (np.concatenate(part) for part in (said, true, again))
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        within = (claims >= low) & (claims <= high)
        assert within.sum() > 60
        assert truths[within].mean() == pytest.approx(claims[within].mean(), abs=0.12)
        assert repeats[within].mean() == pytest.approx(claims[within].mean(), abs=0.2)


def test_where_the_study_saw_the_truth_fresh_studies_agree_with_every_probability() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([[0.0, 0.0], [0.5, 0.4], [-0.5, -1.0], [1.5, 1.0], [0.2, -2.0]])
    _, moved = study(rng, truth)
    said = front_probability(truth, DIRECTIONS, moved, ALONE)
    fresh = np.mean([front(study(rng, truth)[0], DIRECTIONS) for _ in range(1500)], axis=0)
    assert said == pytest.approx(fresh, abs=0.08)


def test_it_agrees_with_the_paired_bootstrap_of_the_frechet_distance() -> None:
    """Shared resample indices, whole images, every distance computed again."""
    rng = np.random.default_rng(0)
    n, d = 400, 3
    groups = np.arange(n) // 2
    reference = Reference(rng.normal(size=(500, d)))
    latent = rng.normal(size=(n, d)) + np.repeat(rng.normal(size=(n // 2, d)), 2, axis=0)
    shifts = (0.30, 0.32, 0.36, 0.50)
    images = [latent / np.sqrt(2) + shift + 0.5 * rng.normal(size=(n, d)) for shift in shifts]
    cosines = [0.3 + 0.02 * i + rng.normal(0, 0.3, size=n) for i in range(len(shifts))]
    distance = METRICS["fid"].estimate
    found = [distance(x, reference) for x in images]
    points = [[one.value, float(c.mean())] for one, c in zip(found, cosines, strict=True)]
    moved = np.array([[one.influence / n, (c - c.mean()) / n] for one, c in zip(found, cosines, strict=True)])
    said = front_probability(points, DIRECTIONS, moved, groups)
    fronts = []
    for _ in range(400):
        rows = (2 * rng.integers(0, n // 2, n // 2)[:, None] + np.arange(2)).ravel()
        again = [
            [distance(x[rows], reference).value, c[rows].mean()] for x, c in zip(images, cosines, strict=True)
        ]
        fronts.append(front(again, DIRECTIONS))
    assert 0.1 < said.min() < 0.9  # a case in which something is uncertain
    assert said == pytest.approx(np.mean(fronts, axis=0), abs=0.08)


# In a run folder


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = tests.test_report.begin(tmp_path / "run")
    for name in tests.test_report.NAMES:
        tests.test_report.publish(made, name, Block(0, 11), invalid=(3,) if name == "768-v" else ())
    return made


def test_a_run_has_its_front_as_a_table_without_touching_the_results(store: Any) -> None:
    report.write_report(store.path)
    run = sd2eval.load_run(store.path)
    assert list(run.front.columns) == COLUMNS
    assert len(run.front) == 4
    assert set(run.front["distance"]) == {"fd_mini"}
    assert set(run.front["score"]) == {"clip_mini"}
    assert run.front["probability"].between(0, 1).all()
    assert "probability" not in run.results.columns
    wide = run.results.pivot(index=["checkpoint", "guidance_scale"], columns="metric", values="value")
    there = [(row.checkpoint, row.guidance_scale) for row in run.front.itertuples()]
    points = wide.loc[there, ["fd_mini", "clip_mini"]].to_numpy()
    assert run.front["front"].tolist() == front(points, DIRECTIONS).tolist()
    assert pd.read_csv(store.path / "pareto.csv").equals(run.front)


def test_a_runs_probabilities_are_those_of_its_metrics_without_the_invalid_images(store: Any) -> None:
    report.write_report(store.path)
    run = sd2eval.load_run(store.path)
    points, moved = np.zeros((4, 2)), np.zeros((4, 2, tests.test_report.N))
    for row, cell in enumerate(run.front.itertuples()):
        data = tests.test_report.features(cell.checkpoint)
        valid = np.arange(tests.test_report.N) != (3 if cell.checkpoint == "768-v" else -1)
        column = tests.test_report.SCALES.index(cell.guidance_scale)
        reference, texts = Reference(tests.test_report.REFERENCE), tests.test_report.TEXTS[valid]
        for role, name, against in ((0, "fd_mini", reference), (1, "clip_mini", texts)):
            images = data[("distance", "score")[role]][valid, column]
            found = METRICS[name].estimate(images, against)
            points[row, role] = found.value
            moved[row, role, valid] = found.influence / valid.sum()
    expected = front_probability(points, DIRECTIONS, moved, np.arange(tests.test_report.N) // 2)
    assert 0.05 < expected.min() < 0.95
    assert run.front["probability"].to_numpy() == pytest.approx(expected, abs=1e-3)


def test_the_table_on_the_terminal_shows_it(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report.write_report(store.path)
    run = sd2eval.load_run(store.path)
    report.show(run)
    shown = capsys.readouterr().out
    assert "pareto.csv" in shown
    assert "probability of being on it" in shown
    lines = [line.split() for line in shown.splitlines() if line.startswith(("512-base", "768-v"))]
    printed = [line[3] if line[1] == "◆" else line[2] for line in lines]
    assert printed == [f"{chance:.2f}" for chance in run.front["probability"]]


def test_a_run_folder_from_before_is_shown_without_it(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report.write_report(store.path)
    for name in ("pareto.csv", "report.json", "digests.json"):
        (store.path / name).unlink()
    run = sd2eval.load_run(store.path)
    assert run.front.empty
    report.show(run)
    assert "probability" not in capsys.readouterr().out


def test_a_cell_without_a_score_has_no_probability() -> None:
    assert front_table([]).empty
    assert dict(chances(front_table([]))) == {}
