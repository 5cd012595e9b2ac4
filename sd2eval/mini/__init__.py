"""The mini study: a synthetic world, its COCO-format data set, and a trained miniature of the SD2 family."""

from __future__ import annotations

from pathlib import Path

#: Folders of the packaged data set and weights.
DATA = Path(__file__).parent / "data"
WEIGHTS = Path(__file__).parent / "weights"
