import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd2eval.errors import InputError
from sd2eval.pareto import cells, dominates, front, roles

# Few distinct values, so that ties and duplicates are common.
problems = st.integers(1, 4).flatmap(
    lambda k: st.tuples(
        st.lists(st.lists(st.integers(-3, 3), min_size=k, max_size=k), min_size=1, max_size=25),
        st.lists(st.sampled_from(["higher", "lower"]), min_size=k, max_size=k),
        st.randoms(use_true_random=False),
    )
)


@settings(max_examples=150, deadline=None)
@given(problems)
def test_the_front_is_what_nothing_dominates(problem):
    points, directions, _ = problem
    mask = front(points, directions)
    expected = [not any(dominates(other, point, directions) for other in points) for point in points]
    assert mask.tolist() == expected
    assert mask.any()


@settings(max_examples=100, deadline=None)
@given(problems)
def test_whatever_is_off_the_front_is_dominated_from_the_front(problem):
    points, directions, _ = problem
    mask = front(points, directions)
    best = [point for point, on in zip(points, mask, strict=True) if on]
    for point, on in zip(points, mask, strict=True):
        assert on or any(dominates(other, point, directions) for other in best)


@settings(max_examples=100, deadline=None)
@given(problems)
def test_order_and_increasing_maps_change_nothing(problem):
    points, directions, random = problem
    order = list(range(len(points)))
    random.shuffle(order)
    mask = front(points, directions)
    assert front([points[i] for i in order], directions).tolist() == mask[order].tolist()
    assert front(np.exp(np.array(points) * 0.5), directions).tolist() == mask.tolist()


def test_direction_decides():
    points = [[1, 1], [2, 2]]
    assert front(points, ["lower", "lower"]).tolist() == [True, False]
    assert front(points, ["higher", "higher"]).tolist() == [False, True]
    assert front(points, ["lower", "higher"]).tolist() == [True, True]


def test_duplicates_are_all_on_the_front():
    assert front([[1, 1], [1, 1], [1, 2]], ["lower", "lower"]).tolist() == [True, True, False]
    assert not dominates([1, 1], [1, 1], ["lower", "lower"])


def test_no_points_have_an_empty_front():
    assert front([], ["lower", "higher"]).shape == (0,)


@pytest.mark.parametrize(
    ("points", "directions", "message"),
    [
        ([[1.0, np.nan], [1, 2]], ["lower", "lower"], "1 of 2 points contain NaN"),
        ([[1.0, 2]], ["lower"], r"shape \[n, 1\], got \[1, 2\]"),
        ([1.0, 2], ["lower", "lower"], "expected points of shape"),
        ([[1.0, 2]], ["lower", "up"], "got .'up'."),
    ],
)
def test_bad_input_is_refused(points, directions, message):
    with pytest.raises(InputError, match=message):
        front(points, directions)


def results(rows) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["checkpoint", "guidance_scale", "metric", "value"])
    return frame.assign(stderr=0.1, n=64, direction="lower", unit="", protocol="p")


def test_cells_are_ordered_and_the_front_is_marked():
    table = cells(
        results(
            [
                ("b", 3.0, "fid", 10.0),
                ("b", 3.0, "clip_score", 0.30),
                ("b", 1.5, "fid", 20.0),
                ("b", 1.5, "clip_score", 0.29),
                ("a", 8.0, "clip_score", 0.33),
                ("a", 8.0, "fid", 12.0),
            ]
        )
    )
    assert table["checkpoint"].tolist() == ["b", "b", "a"]
    assert table["guidance_scale"].tolist() == [1.5, 3, 8]
    assert table["distance"].tolist() == [20, 10, 12]
    assert table["score"].tolist() == [0.29, 0.30, 0.33]
    assert table["front"].tolist() == [False, True, True]
    assert table["kernel"].isna().all()


def test_a_cell_without_score_is_kept_but_never_on_the_front():
    table = cells(
        results([("a", 1.0, "fd_mini", 5.0), ("a", 2.0, "fd_mini", 9.0), ("a", 2.0, "clip_mini", 0.6)])
    )
    assert table["front"].tolist() == [False, True]


def test_roles_follow_the_registry_not_the_file():
    frame = results([("a", 1.0, "fd_mini", 5.0), ("a", 1.0, "fid", 9.0), ("a", 1.0, "unheard_of", 1.0)])
    assert {role: metric.name for role, metric in roles(frame).items()} == {"distance": "fid"}


def test_two_runs_in_one_frame_are_refused():
    row = ("a", 1.5, "fid", 5.0)
    with pytest.raises(InputError, match=r"two values of fid for a at guidance scale 1\.5"):
        cells(results([row, row]))


def test_no_results_are_no_cells():
    assert len(cells(results([]))) == 0
