"""Runs to compare, swept once for all test modules."""

from __future__ import annotations

from pathlib import Path

import pytest

import sd2eval

SMALL = (
    "experiment=smoke",
    "prompts.n=6",
    "protocol.metrics=[fd_mini,kid_mini,clip_mini,psnr,ssim,lpips_mini]",
    "images=none",
    "progress=false",
)
ONE = ("checkpoints=[512-base]", "guidance_scales=[1.5]")
SETTINGS: dict[str, tuple[str, ...]] = {
    "base": (),
    "steps": ("sampler.steps=6",),
    "few": ("prompts.n=4",),
    "seed": (*ONE, "seed=1"),
    "protocol": (*ONE, "protocol.quantize=truncate"),
}
_swept: dict[str, Path] = {}


def swept(factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return five run folders: as it is, more steps, fewer captions, another seed, another protocol."""
    if not _swept:
        root = factory.mktemp("compared")
        for name, words in SETTINGS.items():
            sd2eval.run_sweep(*SMALL, *words, f"out={root / name}")
        _swept.update({name: root / name for name in SETTINGS})
    return _swept
