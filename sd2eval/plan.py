"""Enumerate the work: cells, and the blocks of captions that are still to be sampled. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One (checkpoint, guidance scale)."""

    checkpoint: str
    guidance_scale: float

    @property
    def key(self) -> str:
        """File-name-safe name, such as `512-base_g1.5`."""
        return f"{self.checkpoint}_g{self.guidance_scale:g}"


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """A shard's captions: positions `first` to `last`, inclusive, of the run's prompt list."""

    first: int
    last: int

    @property
    def key(self) -> str:
        """Folder name, sortable up to a million prompts."""
        return f"{self.first:06d}-{self.last:06d}"

    def __len__(self) -> int:
        return self.last - self.first + 1

    @staticmethod
    def parse(key: str) -> Block:
        """Return the block that `key` names.

        Raises:
            ValueError: not a block's key.
        """
        first, _, last = key.partition("-")
        return Block(int(first), int(last))


def cells(checkpoints: Iterable[str], scales: Sequence[float]) -> list[Cell]:
    """Return all cells of a sweep, checkpoint by checkpoint."""
    return [Cell(checkpoint, scale) for checkpoint in checkpoints for scale in scales]


def remaining(n: int, done: Iterable[Block], shard_size: int) -> list[Block]:
    """Cut what is not done of the positions 0..n-1 into blocks.

    Args:
        n: prompts of the run.
        done: published blocks of one checkpoint; any sizes.
        shard_size: captions per new block; may differ from the one `done` was made with.
    """
    return [
        Block(start, min(start + shard_size, last + 1) - 1)
        for first, last in _gaps(n, sorted(done))
        for start in range(first, last + 1, shard_size)
    ]


def _gaps(n: int, done: Sequence[Block]) -> Iterator[tuple[int, int]]:
    position = 0
    for block in done:
        if position < block.first:
            yield position, block.first - 1
        position = max(position, block.last + 1)
    if position < n:
        yield position, n - 1
