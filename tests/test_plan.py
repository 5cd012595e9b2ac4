from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sd2eval.plan import Block, Cell, cells, remaining


def test_cells_go_checkpoint_by_checkpoint() -> None:
    assert cells(["a", "b"], [1.5, 3.0]) == [Cell("a", 1.5), Cell("a", 3.0), Cell("b", 1.5), Cell("b", 3.0)]


def test_cell_keys_differ_between_close_scales() -> None:
    assert len({Cell("a", scale).key for scale in (1.0, 1.5, 1.05, 10.0, 10.5)}) == 5


def test_a_block_is_found_again_by_its_key() -> None:
    assert Block.parse(Block(3, 17).key) == Block(3, 17)


@given(
    n=st.integers(1, 200),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    keep=st.lists(st.booleans(), min_size=200, max_size=200),
)
def test_whatever_is_done_and_however_it_was_cut_the_rest_completes_it(
    n: int, sizes: tuple[int, int], keep: list[bool]
) -> None:
    done = [block for block, kept in zip(remaining(n, [], sizes[0]), keep, strict=False) if kept]
    todo = remaining(n, done, sizes[1])
    positions = sorted(p for block in [*done, *todo] for p in range(block.first, block.last + 1))
    assert positions == list(range(n))
    assert all(1 <= len(block) <= sizes[1] for block in todo)
