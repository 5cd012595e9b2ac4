"""A shard's images against what the checkpoint was shown, with the mini checkpoints."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sd2eval import masks, paired, shard
from sd2eval.checkpoints import Checkpoint, load
from sd2eval.config import ProtocolConfig, from_overrides
from sd2eval.dataset import load_dataset
from sd2eval.extractors import load_extractor
from sd2eval.networks import paired_metrics
from sd2eval.shard import Given, Pixels

CPU = torch.device("cpu")
N, SCALES = 6, 2
SEED = 3


@cache
def setting(name: str) -> tuple[Checkpoint, Given, list[int], ProtocolConfig]:
    config, definitions = from_overrides(f"checkpoints=[{name}]", f"prompts.n={N}")
    dataset = load_dataset(config.data, config.prompts, definitions)
    checkpoint = load(definitions[0], CPU, torch.float32)
    given = shard.given(checkpoint, dataset, dataset.prompts, SEED)
    return checkpoint, given, [prompt.caption_id for prompt in dataset.prompts], config.protocol


def measured(name: str, pixels: Pixels, size: int = N) -> dict[str, NDArray[np.float32]]:
    checkpoint, given, captions, protocol = setting(name)
    shown = paired.shown(checkpoint, given, captions, SEED, protocol)
    metrics = paired_metrics(protocol, checkpoint.definition)
    network = load_extractor(protocol.perceptual, CPU)
    return paired.measure(checkpoint, shown, pixels, metrics, network, size)


@pytest.fixture
def pixels() -> Pixels:
    images = np.random.default_rng(0).integers(0, 256, (N, SCALES, 64, 64, 3), dtype=np.uint8)
    return Pixels(images, np.ones((N, SCALES), dtype=np.bool_))


def perfect(name: str) -> Pixels:
    squares = setting(name)[1].squares
    assert squares is not None
    return Pixels(np.stack([squares] * SCALES, axis=1), np.ones((N, SCALES), dtype=np.bool_))


def test_the_originals_themselves_are_perfect() -> None:
    found = measured("512-inpainting", perfect("512-inpainting"))
    for name in ("psnr", "psnr_mask"):
        np.testing.assert_allclose(found[name], 58.92, atol=0.005)
    for name in ("ssim", "ssim_mask"):
        np.testing.assert_allclose(found[name], 1, rtol=1e-6)
    for name in ("lpips_mini", "lpips_mini_mask"):
        assert not found[name].any()
    np.testing.assert_allclose(
        measured("512-depth", perfect("512-depth"))["depth_agreement_mini"], 1, rtol=1e-5
    )


def test_values_are_one_per_image_in_float32(pixels: Pixels) -> None:
    found = measured("512-inpainting", pixels)
    assert {(values.shape, values.dtype) for values in found.values()} == {((N, SCALES), np.dtype("float32"))}
    assert len(found) == 6
    assert all(len(np.unique(values)) == N * SCALES for values in found.values())


def test_what_lies_outside_the_mask_moves_no_masked_metric(pixels: Pixels) -> None:
    before = measured("512-inpainting", pixels)
    drawn = np.stack([masks.mask(SEED, caption, 64) for caption in setting("512-inpainting")[2]])
    partly = ~drawn.all(axis=(1, 2))
    assert partly.sum() >= 3
    changed = np.where(drawn[:, None, :, :, None], pixels.images, 255 - pixels.images)
    after = measured("512-inpainting", Pixels(changed, pixels.valid))
    for name in ("psnr", "ssim", "lpips_mini"):
        np.testing.assert_array_equal(after[f"{name}_mask"], before[f"{name}_mask"])
        assert (after[name][partly] != before[name][partly]).all()
    changed = np.where(drawn[:, None, :, :, None], 255 - pixels.images, pixels.images)
    after = measured("512-inpainting", Pixels(changed, pixels.valid))
    for name in ("psnr", "ssim", "lpips_mini"):
        assert (after[f"{name}_mask"] != before[f"{name}_mask"]).all()


def test_a_mask_of_everything_gives_the_unmasked_values(pixels: Pixels) -> None:
    checkpoint, given, captions, protocol = setting("512-inpainting")
    drawn = paired.shown(checkpoint, given, captions, SEED, protocol)
    assert drawn.masks is not None
    whole = paired.Shown(drawn.originals, np.ones_like(drawn.masks), None)
    metrics = paired_metrics(protocol, checkpoint.definition)
    found = paired.measure(checkpoint, whole, pixels, metrics, load_extractor(protocol.perceptual, CPU), N)
    for name in ("psnr", "ssim", "lpips_mini"):
        np.testing.assert_allclose(found[f"{name}_mask"], found[name], rtol=1e-5)


@pytest.mark.parametrize("name", ["512-inpainting", "512-depth", "x4-upscaling"])
def test_values_do_not_depend_on_how_many_are_compared_at_a_time(name: str, pixels: Pixels) -> None:
    whole, parts = measured(name, pixels), measured(name, pixels, size=4)
    assert whole.keys() == parts.keys()
    for metric, values in whole.items():
        np.testing.assert_allclose(parts[metric], values, rtol=1e-5, err_msg=metric)


def test_an_invalid_image_has_no_value(pixels: Pixels) -> None:
    valid = pixels.valid.copy()
    valid[2, 1] = False
    for name in ("512-inpainting", "512-depth", "x4-upscaling"):
        for values in measured(name, Pixels(pixels.images, valid)).values():
            assert np.array_equal(np.isnan(values), ~valid)


def test_inverted_depth_is_the_opposite() -> None:
    """The depth that the estimator sees, against its own negative: the conditioning turned inside out."""
    checkpoint, given, captions, protocol = setting("512-depth")
    shown = paired.shown(checkpoint, given, captions, SEED, protocol)
    assert shown.depth is not None
    inverted = paired.Shown(shown.originals, None, 5 - 2 * shown.depth)
    metrics = paired_metrics(protocol, checkpoint.definition)
    found = paired.measure(checkpoint, inverted, perfect("512-depth"), metrics, None, N)
    np.testing.assert_allclose(found["depth_agreement_mini"], -1, rtol=1e-5)


def test_a_text_only_checkpoint_is_shown_nothing() -> None:
    _, given, _, _ = setting("512-base")
    assert given.squares is None
    assert given.conditioning.channels is None
