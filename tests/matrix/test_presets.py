"""What a preset chooses, what of that a run's PNGs can still show, and what two protocols share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sd2eval import config, images
from sd2eval.extractors.base import Extractor
from sd2eval.images import FILTERS, digest, square, write_png
from sd2eval.matrix.features import cell_features, look
from sd2eval.matrix.pngs import CellImages, Png
from sd2eval.matrix.presets import (
    Preset,
    differs,
    distance_metric,
    missing_weights,
    not_varied,
    preset,
    preset_names,
)
from sd2eval.plan import Cell

RNG = np.random.default_rng(3)
DRAWN: dict[str, dict[str, Any]] = {"base": {"resolution": 512}, "v": {"resolution": 768}}


@pytest.fixture(scope="module")
def card() -> Preset:
    return preset("model_card")


def test_every_preset_composes_and_has_a_distance() -> None:
    names = preset_names()
    assert {"mini", "model_card", "mlperf", "clean_fid", "torchmetrics"} <= set(names)
    assert "schema" not in names
    for name in names:
        found = distance_metric(preset(name).protocol)
        assert found is not None
        assert found.name == ("fd_mini" if name.startswith("mini") else "fid")


@pytest.mark.parametrize(
    ("name", "chosen", "settled"),
    [
        ("model_card", set(), {}),
        ("model_card_native", {"sample_at=protocol"}, {"sample_at": ["v"]}),
        ("torchmetrics", {"quantize=truncate", "preprocess=torchmetrics"}, {"quantize": ["base", "v"]}),
        ("clean_fid", {"fit=none", "preprocess=clean_fid"}, {"fit": ["v"]}),
        ("mlperf", {"fit=squash", "reference_jpeg=75", "preprocess=pytorch_fid"}, {}),
    ],
)
def test_what_was_decided_before_the_png(
    name: str, chosen: set[str], settled: dict[str, list[str]], card: Preset
) -> None:
    other = preset(name)
    assert set(differs(other, card)) == chosen
    assert not_varied(other, card, DRAWN) == settled


def test_images_that_were_not_resized_keep_all_choices_of_geometry(card: Preset) -> None:
    whole = preset("clean_fid")
    assert not_varied(card, whole, DRAWN) == {}
    smaller = Preset("small", replace(card.protocol, resolution=256, resize="bilinear"))
    assert not_varied(smaller, card, DRAWN) == {"resize": ["v"], "resolution": ["v"]}
    native = preset("model_card_native")
    assert not_varied(card, native, {"base": {"resolution": 512}}) == {"sample_at": ["base"]}


@pytest.mark.parametrize("name", [*FILTERS, "bicubic_aliased", "bilinear_aliased"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_no_filter_changes_a_square_of_its_own_size(name: Any, fit: Any) -> None:
    image = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(square(image, 48, name, fit), image)


# Weights


@pytest.mark.parametrize(
    ("kind", "name", "asked"),
    [
        ("dinov2", "dinov2_vit_l_14", "dinov2_vit_l_14"),  # has no `pretrained`: its name says which weights
        ("inception", "inception", "inception"),
        ("nonsense", "nonsense", "'nonsense' is unknown"),
    ],
)
def test_weights_that_are_not_here_are_named_for_every_kind_of_network(
    kind: str, name: str, asked: str, card: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pretrained = "inception" if kind == "inception" else None
    network = replace(card.protocol.distance, kind=kind, name=name, pretrained=pretrained)
    reason = missing_weights(network)
    assert reason is not None
    assert asked in reason
    assert ("models fetch" in reason) == (kind != "nonsense")
    if kind == "dinov2":
        assert missing_weights(replace(network, source=str(tmp_path))) is None


# Features


def counting(shown: list[tuple[int, ...]]) -> Extractor:
    def means(batch: images.Pixels) -> dict[str, Any]:
        shown.append(batch.shape)
        return {"features": batch.reshape(len(batch), -1, 3).mean(axis=1).astype(np.float32)}

    return Extractor(name="means", digest="d" * 64, images=means)


def cell(folder: Path, count: int) -> CellImages:
    pngs = []
    for key in range(count):
        pixels = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        write_png(folder / f"{key}.png", pixels)
        pngs.append(Png(folder / f"{key}.png", digest(pixels), folder))
    return CellImages(Cell("a", 3.0), pngs, np.ones(count, dtype=np.bool_), 64)


def test_protocols_that_see_the_same_share_one_extraction(tmp_path: Path) -> None:
    shown: list[tuple[int, ...]] = []
    extractor, done = counting(shown), []
    mini = preset("mini").protocol
    same = [preset(name).protocol for name in ("mini_squash", "mini_jpeg", "mini_aliased", "mini_native")]
    small = replace(mini, resolution=32)
    looks = [look(protocol, extractor, 64) for protocol in (mini, *same, small)]
    assert len({one.key for one in looks}) == 2
    found = cell_features(cell(tmp_path, 70), looks, done.append)
    assert shown == [(64, 64, 64, 3), (64, 32, 32, 3), (6, 64, 64, 3), (6, 32, 32, 3)]
    assert sum(done) == 70
    assert {array.shape for array in found.values()} == {(70, 3)}


def test_what_moves_a_number_is_part_of_the_key() -> None:
    mini, extractor = preset("mini").protocol, counting([])
    others = [
        replace(mini, distance=replace(mini.distance, dtype="bfloat16")),
        replace(mini, distance=replace(mini.distance, preprocess="other")),
        replace(mini, resolution=32),
        replace(mini, resolution=32, resize="bilinear"),
    ]
    keys = {look(protocol, extractor, 64).key for protocol in (mini, *others)}
    keys.add(look(mini, replace(extractor, digest="e" * 64), 64).key)
    assert len(keys) == 6
    named = replace(mini, distance=replace(mini.distance, name="another", batch_size=1))
    assert look(named, extractor, 64).key in keys
    assert config.identity_fields(named) != config.identity_fields(mini)
