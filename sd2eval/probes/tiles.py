"""The order of the tiles of a contact sheet, which shows the first ones."""

from __future__ import annotations

from collections.abc import Sequence

from sd2eval.probes.base import Tile


def one_of_each(tiles: Sequence[Tile]) -> list[Tile]:
    """Return the tiles in turns: first one of each text, then the second ones, and so on."""
    seen: dict[str, int] = {}
    turns = []
    for tile in tiles:
        seen[tile.text] = seen.get(tile.text, 0) + 1
        turns.append(seen[tile.text])
    return [tiles[at] for at in sorted(range(len(tiles)), key=lambda at: (turns[at], at))]
