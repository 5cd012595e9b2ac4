"""Where the numbers of the original code are: beside the checkout, or the two that the package ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from sd2eval.fixture import SHIPPED

BESIDE = Path(__file__).parents[2] / "shared" / "parity"
VARIANTS = ("base", "v", "depth", "inpainting", "x4", "v1")


def folder(variant: str) -> Path:
    """Return the folder of a fixture; skips the test where only the shipped ones are there."""
    for root in (BESIDE, SHIPPED):
        if (root / variant).is_dir():
            return root / variant
    pytest.skip(f"the fixture '{variant}' is not beside this checkout; the package ships base and x4 only")
