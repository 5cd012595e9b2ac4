from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd2eval import reference
from sd2eval.config import ProtocolConfig, from_overrides
from sd2eval.features import Extractor
from sd2eval.images import load_rgb, square


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 70, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def protocol() -> ProtocolConfig:
    return from_overrides()[0].protocol


class Mean:
    """An extractor whose features are the mean colours; counts the images it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(images)
        return np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)


def test_features_are_of_the_squared_images_and_computed_once(
    files: list[Path], protocol: ProtocolConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "CHUNK", 2)
    mean = Mean()
    extractor = Extractor("mean", "weights", mean)
    key = reference.reference_digest(files, protocol, extractor)
    first = reference.reference_features(files, protocol, extractor, key)
    second = reference.reference_features(files, protocol, extractor, key)
    assert mean.seen == 5
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, [square(load_rgb(file), 64).mean((0, 1)) for file in files], rtol=1e-5)


def test_the_key_changes_with_images_geometry_and_extractor(
    files: list[Path], protocol: ProtocolConfig
) -> None:
    def key(files: list[Path], protocol: ProtocolConfig, weights: str = "weights") -> str:
        return reference.reference_digest(files, protocol, Extractor("mean", weights, Mean()))

    keys = {
        key(files, protocol),
        key(files[:4], protocol),
        key(files, dataclasses.replace(protocol, fit="squash")),
        key(files, dataclasses.replace(protocol, resize="lanczos")),
        key(files, dataclasses.replace(protocol, resolution=32)),
        key(files, protocol, "other weights"),
    }
    Image.new("RGB", (40, 70)).save(files[2])
    keys.add(key(files, protocol))
    assert len(keys) == 7
