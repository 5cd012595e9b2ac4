"""PSNR, SSIM and depth agreement against closed forms and others' code, whole and inside a mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sd2eval.paired import ROUNDING, correlation, psnr, resized, ssim

Images = NDArray[np.uint8]
SIZE = 48
MOST = 10 * np.log10(255**2 / ROUNDING)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Images, Images]:
    """Smooth pictures and noisy copies of them, some of which are bright and nearly flat."""
    smooth = gaussian_filter(rng.normal(size=(4, SIZE, SIZE, 3)), (0, 4, 4, 0))
    originals = 128 + 90 * smooth / np.abs(smooth).max(axis=(1, 2, 3), keepdims=True)
    originals[3] = 240 + np.round(originals[3] / 100)
    noise = rng.normal(size=originals.shape) * np.array([2, 10, 40, 1]).reshape(4, 1, 1, 1)
    return tuple(np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in (originals + noise, originals))  # type: ignore[return-value]


@pytest.fixture
def masks() -> NDArray[np.bool_]:
    masks = np.zeros((4, SIZE, SIZE), dtype=np.bool_)
    masks[:, 10:30, 20:40] = True
    return masks


def torch_layout(images: Images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


@pytest.mark.parametrize("offset", [1, 7, 100, 255])
def test_a_constant_offset_has_the_psnr_of_its_square(offset: int) -> None:
    dark = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(psnr(dark + np.uint8(offset), dark), 20 * np.log10(255 / offset), rtol=1e-12)
    np.testing.assert_allclose(psnr(dark, dark + np.uint8(offset)), 20 * np.log10(255 / offset), rtol=1e-12)


def test_identical_images_have_the_psnr_of_rounding_and_no_better_exists(rng: np.random.Generator) -> None:
    images = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(psnr(images, images), 58.92, atol=0.005)
    nearly = images.copy()
    nearly[1, 0, 0, 0] += 1  # a mean squared error of 1/192, below that of rounding
    nearly[2, :4, 0, :] += 1  # of 1/16
    values = psnr(nearly, images)
    assert values[0] == values[1] == values[2] == MOST
    worse = images.copy()
    worse[:, :6, 0, :] += 1  # of 18/192, just above
    assert (psnr(worse, images) < MOST).all()


def test_psnr_is_that_of_torchmetrics(pair: tuple[Images, Images]) -> None:
    images, originals = map(torch_layout, pair)
    want = peak_signal_noise_ratio(images, originals, data_range=255.0, reduction="none", dim=(1, 2, 3))
    np.testing.assert_allclose(psnr(*pair), want.numpy(), rtol=1e-6)


def test_identical_images_have_ssim_one(pair: tuple[Images, Images]) -> None:
    np.testing.assert_allclose(ssim(pair[1], pair[1]), 1, rtol=1e-12)


def test_constant_images_have_the_luminance_term_of_ssim(rng: np.random.Generator) -> None:
    a, b = (np.full((2, 16, 16, 3), value, dtype=np.uint8) for value in (100, 150))
    c1 = (0.01 * 255) ** 2
    np.testing.assert_allclose(ssim(a, b), (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), rtol=1e-12)


def test_ssim_is_that_of_torchmetrics(pair: tuple[Images, Images]) -> None:
    images, originals = map(torch_layout, pair)
    want = structural_similarity_index_measure(images, originals, data_range=255.0, reduction="none")
    found = ssim(*pair)
    np.testing.assert_allclose(found, want.numpy(), atol=1e-10)
    assert found[0] > found[1] > found[2]
    in_float32 = structural_similarity_index_measure(
        images.float(), originals.float(), data_range=255.0, reduction="none"
    )
    np.testing.assert_allclose(found[:3], in_float32.numpy()[:3], atol=1e-5)


def ssim_map(image: Images, original: Images) -> NDArray[np.float64]:
    """The map of Wang et al. 2004 written with scipy's filters; its `mirror` repeats no edge pixel."""

    def blur(part: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(part, (1.5, 1.5, 0), radius=(5, 5, 0), mode="mirror")  # type: ignore[no-any-return]

    x, y = image.astype(np.float64), original.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return found.mean(axis=2)  # type: ignore[no-any-return]


def test_masked_ssim_is_the_mean_of_the_map_over_the_mask(
    pair: tuple[Images, Images], masks: NDArray[np.bool_]
) -> None:
    maps = [ssim_map(image, original) for image, original in zip(*pair, strict=True)]
    want = [part[mask].mean() for part, mask in zip(maps, masks, strict=True)]
    np.testing.assert_allclose(ssim(*pair, masks), want, rtol=1e-9)
    np.testing.assert_allclose(ssim(*pair), [part.mean() for part in maps], rtol=1e-9)


def test_masked_psnr_sees_the_mask_only(pair: tuple[Images, Images], masks: NDArray[np.bool_]) -> None:
    cut = [part[:, 10:30, 20:40] for part in pair]
    np.testing.assert_allclose(psnr(*pair, masks), psnr(cut[0], cut[1]), rtol=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_a_mask_of_everything_changes_nothing(
    metric: Callable[..., NDArray[np.float64]], pair: tuple[Images, Images]
) -> None:
    everything = np.ones((4, SIZE, SIZE), dtype=np.bool_)
    np.testing.assert_allclose(metric(*pair, everything), metric(*pair), rtol=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_do_not_meet_in_a_batch(
    metric: Callable[..., NDArray[np.float64]],
    pair: tuple[Images, Images],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = metric(*pair)
    alone = [metric(pair[0][i : i + 1], pair[1][i : i + 1])[0] for i in range(4)]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    monkeypatch.setattr("sd2eval.paired.CHUNK_PIXELS", 3 * SIZE**2)
    np.testing.assert_allclose(metric(*pair), together, rtol=1e-12)


def test_correlation_is_pearsons_and_blind_to_affine_changes(rng: np.random.Generator) -> None:
    depth, other = rng.normal(size=(2, 5, 8, 8))
    want = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(depth, other, strict=True)]
    np.testing.assert_allclose(correlation(depth, other), want, rtol=1e-10)
    np.testing.assert_allclose(correlation(depth, depth), 1, rtol=1e-12)
    np.testing.assert_allclose(correlation(3 * depth - 8, depth), 1, rtol=1e-12)
    np.testing.assert_allclose(correlation(-0.1 * depth + 2, depth), -1, rtol=1e-12)


def test_depth_without_contrast_agrees_with_nothing(rng: np.random.Generator) -> None:
    depth = rng.normal(size=(2, 8, 8))
    flat = np.full((2, 8, 8), -1.0)
    for pair in ((flat, depth), (depth, flat), (flat, flat)):
        assert correlation(*pair).tolist() == [0, 0]


def test_a_mask_keeps_its_place_and_share_at_another_size() -> None:
    mask = np.zeros((96, 96), dtype=np.bool_)
    mask[24:48, 48:96] = True
    small = resized(mask, 64)
    want = np.zeros((64, 64), dtype=np.bool_)
    want[16:32, 32:64] = True
    assert np.array_equal(small, want)
    assert resized(mask, 96) is mask


def test_a_mask_is_never_resized_to_nothing() -> None:
    for pixels in ([(5, 5)], [(0, 0), (95, 95)]):
        mask = np.zeros((96, 96), dtype=np.bool_)
        for pixel in pixels:
            mask[pixel] = True
        assert resized(mask, 16).any()
        assert resized(mask, 16).sum() <= len(pixels)
