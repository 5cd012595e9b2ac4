"""Whether a protocol changes who is better, on values whose order is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from sd2eval.matrix.ranks import Ranks, rank
from sd2eval.plan import Cell

CELLS = [Cell("a", 1.5), Cell("a", 3.0), Cell("b", 1.5), Cell("b", 3.0)]
FIRST = [1.0, 2.0, 3.0, 4.0]


def ranked(other: list[float], stderr: float = 0.1, *, lower: bool = True) -> Ranks:
    values = {"first": np.array(FIRST), "other": np.array(other)}
    return rank(CELLS, values, dict.fromkeys(values, np.full(4, stderr)), lower_is_better=lower)


def test_tau_is_kendalls() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        other = list(rng.normal(size=4))
        assert ranked(other).orders[1].tau == pytest.approx(kendalltau(FIRST, other).statistic)


def test_a_reversed_order_swaps_every_pair() -> None:
    order = ranked(FIRST[::-1]).orders[1]
    assert (order.tau, order.swapped, order.clearly) == (-1, 6, 6)
    assert (order.best, order.checkpoints) == ("b at 3", ["b", "a"])


def test_a_swap_is_clear_only_if_both_protocols_tell_the_cells_apart() -> None:
    swapped = [2.0, 1.0, 3.0, 4.0]
    apart = 1.0 / np.hypot(1, 1) / 1.96  # the standard error at which a difference of 1 stops being clear
    assert ranked(swapped, 0.99 * apart).orders[1].clearly == 1
    assert ranked(swapped, 1.01 * apart).orders[1].clearly == 0
    assert ranked([1.01, 1.0, 3.0, 4.0], 0.99 * apart).orders[1].clearly == 0
    far = ranked([9.0, 1.0, 10.0, 11.0], 1.01 * apart).orders[1]
    assert (far.swapped, far.clearly) == (1, 0)


def test_the_sentence_says_whether_the_order_changes() -> None:
    assert ranked([2.0, 3.0, 5.0, 9.0]).sentence == (
        "Ranks: every protocol orders all 6 pairs of cells alike; the best cell is a at 1.5 under every one; "
        "by their means the checkpoints are always a < b (best first)."
    )
    assert ranked([2.0, 1.0, 3.0, 4.0], 10.0).sentence == (
        "Ranks: other swaps 1 of 6 pairs of cells, none of them clearly apart (Kendall's tau 0.67, the "
        "lowest); the best cell is a at 1.5 under first, a at 3 under other; by their means the checkpoints "
        "are always a < b (best first)."
    )
    assert "checkpoints are a < b (best first) under first, b < a under other" in ranked(FIRST[::-1]).sentence


def test_where_higher_is_better_the_best_is_the_highest() -> None:
    ranks = ranked([2.0, 3.0, 5.0, 9.0], lower=False)
    assert {order.best for order in ranks.orders} == {"b at 3"}
    assert ranks.orders[0].checkpoints == ["b", "a"]


def test_one_cell_or_one_protocol_has_no_ranks() -> None:
    one = {"first": np.array([1.0]), "other": np.array([2.0])}
    assert rank(CELLS[:1], one, one).sentence == ""
    alone = {"first": np.array(FIRST)}
    assert rank(CELLS, alone, alone).sentence == ""
