from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd2eval import reference
from sd2eval.config import ProtocolConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors.base import Extractor
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

    def __call__(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        self.seen += len(images)
        return {"features": np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)}


class Small(Mean):
    """The same with memory for one image."""

    def __call__(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        if len(images) > 1:
            raise torch.OutOfMemoryError
        return super().__call__(images)


def network(weights: str = "weights", mean: Mean | None = None) -> Extractor:
    return Extractor(name="mean", digest=weights, images=mean or Mean())


def key(files: list[Path], protocol: ProtocolConfig, weights: str = "weights", slot: str = "distance") -> str:
    return reference.reference_digest(reference.files_digest(files), protocol, slot, network(weights))


def test_features_are_of_the_squared_images_and_computed_once(
    files: list[Path], protocol: ProtocolConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "CHUNK", 2)
    mean, other = Mean(), Mean()
    first = {"distance": (network(mean=mean), key(files, protocol))}
    (features,) = reference.reference_features(files, protocol, first).values()
    both = first | {"score": (network("other", other), key(files, protocol, "other", "score"))}
    again = reference.reference_features(files, protocol, both)
    assert (mean.seen, other.seen) == (5, 5)
    np.testing.assert_array_equal(features, again["distance"])
    np.testing.assert_array_equal(features, again["score"])
    want = [square(load_rgb(file), 64).mean((0, 1)) for file in files]
    np.testing.assert_allclose(features, want, rtol=1e-5)


def test_too_little_memory_means_fewer_images_at_a_time(
    files: list[Path], protocol: ProtocolConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "CHUNK", 4)
    told: list[int] = []
    small = {"a": (network(mean=Small()), "a")}
    (found,) = reference.reference_features(files, protocol, small, on_smaller=told.append).values()
    (plain,) = reference.reference_features(files, protocol, {"a": (network(), "b")}).values()
    np.testing.assert_array_equal(found, plain)
    assert told == [2, 1]  # not again for the second chunk


def test_jpeg_is_what_the_extractor_sees(files: list[Path], protocol: ProtocolConfig) -> None:
    coarse = dataclasses.replace(protocol, reference_jpeg=5)
    (plain,) = reference.reference_features(files, protocol, {"a": (network(), "a")}).values()
    (lossy,) = reference.reference_features(files, coarse, {"a": (network(), "b")}).values()
    assert 0.1 < np.abs(plain - lossy).max() < 20


def test_the_key_changes_with_images_geometry_and_extractor(
    files: list[Path], protocol: ProtocolConfig
) -> None:
    def with_network(**changes: object) -> ProtocolConfig:
        return dataclasses.replace(protocol, distance=dataclasses.replace(protocol.distance, **changes))

    keys = [
        key(files, protocol),
        key(files[:4], protocol),
        key(files, dataclasses.replace(protocol, fit="squash")),
        key(files, dataclasses.replace(protocol, resize="lanczos")),
        key(files, dataclasses.replace(protocol, resolution=32)),
        key(files, dataclasses.replace(protocol, reference_jpeg=75)),
        key(files, with_network(dtype="bfloat16")),
        key(files, with_network(preprocess="clean_fid")),
        key(files, protocol, "other weights"),
    ]
    Image.new("RGB", (40, 70)).save(files[2])
    keys.append(key(files, protocol))
    assert len(set(keys)) == len(keys)
    assert (
        key(files, protocol) == key(files, with_network(batch_size=3)) == key(files, with_network(source="x"))
    )


def test_a_network_without_features_cannot_compare(files: list[Path], protocol: ProtocolConfig) -> None:
    pairs = Extractor(
        name="joint", digest="x", pairs=lambda images, captions: {"value": np.zeros(len(images))}
    )
    with pytest.raises(InputError, match="extractor 'joint': has no features"):
        reference.reference_features(files, protocol, {"distance": (pairs, "key")})
