from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from sd2eval import masks, noise
from sd2eval.checkpoints.conditioning import (
    Conditioning,
    depth_adapter,
    estimator_input,
    inpainting_adapter,
    low_resolution,
    normalized_depth,
    to_signed,
    upscaling_adapter,
)

CAPTIONS = [4, 9]


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    kinds = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        down_block_types=kinds[0], up_block_types=kinds[1], block_out_channels=(8, 8, 16, 16),
        latent_channels=4,
        norm_num_groups=4, scaling_factor=0.5,
    ).eval()  # fmt: skip


def test_signed_images_span_minus_one_to_one() -> None:
    signed = to_signed(np.array([[[[0, 255, 51]]]], dtype=np.uint8))
    assert signed.shape == (1, 3, 1, 1)
    torch.testing.assert_close(signed.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_rows_repeat_and_reorder_both_parts() -> None:
    conditioning = Conditioning(torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9]))
    rows = conditioning.rows(torch.tensor([2, 0, 0]))
    assert rows.channels is not None
    assert rows.class_labels is not None
    assert rows.channels.tolist() == [[4.0, 5.0], [0.0, 1.0], [0.0, 1.0]]
    assert rows.class_labels.tolist() == [9, 7, 7]


def test_depth_is_stretched_per_image_after_the_resize() -> None:
    depth = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 5, 9]
    ).view(3, 1, 1, 1)
    small = normalized_depth(depth, 8)
    assert small.shape == (3, 1, 8, 8)
    torch.testing.assert_close(small.amin((1, 2, 3)), torch.full((3,), -1.0))
    torch.testing.assert_close(small.amax((1, 2, 3)), torch.full((3,), 1.0))
    torch.testing.assert_close(normalized_depth(7 * depth + 3, 8), small, rtol=1e-3, atol=1e-3)


def test_a_flat_depth_map_stays_finite() -> None:
    assert torch.isfinite(normalized_depth(torch.full((1, 1, 32, 32), 4.0), 8)).all()


def test_depth_adapter_shows_the_estimator_its_own_size(images: NDArray[np.uint8]) -> None:
    seen: list[torch.Tensor] = []

    def estimator(pixel_values: torch.Tensor) -> Any:
        seen.append(pixel_values)
        return SimpleNamespace(predicted_depth=pixel_values.mean(1))

    estimator.config = SimpleNamespace(image_size=32)  # type: ignore[attr-defined]
    estimator.device = torch.device("cpu")  # type: ignore[attr-defined]
    conditioning = depth_adapter(estimator, 8)(images, CAPTIONS, 0)
    # The original's cv2.INTER_CUBIC does not antialias.
    torch.testing.assert_close(
        seen[0], interpolate(to_signed(images), (32, 32), mode="bicubic", antialias=False)
    )
    assert conditioning.channels is not None
    assert conditioning.channels.shape == (2, 1, 8, 8)


def test_inpainting_order_is_mask_then_latent_of_the_image_with_a_grey_hole(
    images: NDArray[np.uint8], vae: Any
) -> None:
    conditioning = inpainting_adapter(vae, 8)(images, CAPTIONS, 3)
    mask = torch.from_numpy(np.stack([masks.mask(3, caption, 64) for caption in CAPTIONS])).float()[:, None]
    with torch.inference_mode():
        posterior = vae.encode(torch.where(mask > 0.5, 0.0, to_signed(images))).latent_dist
    draw = noise.normal(3, CAPTIONS, "posterior", (4, 8, 8))
    assert conditioning.channels is not None
    assert torch.equal(
        conditioning.channels[:, :1], mask[:, :, ::8, ::8]
    )  # nearest: top-left pixel of each cell
    torch.testing.assert_close(conditioning.channels[:, 1:], 0.5 * (posterior.mean + posterior.std * draw))


def test_inpainting_conditioning_of_an_image_does_not_depend_on_its_batch(
    images: NDArray[np.uint8], vae: Any
) -> None:
    adapter = inpainting_adapter(vae, 8)
    together, alone = adapter(images, CAPTIONS, 3), adapter(images[1:], CAPTIONS[1:], 3)
    assert together.channels is not None
    assert alone.channels is not None
    torch.testing.assert_close(together.channels[1:], alone.channels)


def test_upscaling_noises_the_small_image_to_the_level_that_is_the_label(images: NDArray[np.uint8]) -> None:
    small, draw = to_signed(low_resolution(images)), noise.normal(0, CAPTIONS, "low_res", (3, 16, 16))
    betas = torch.linspace(0.0001**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0).float()
    for level in (0, 20, 349):
        conditioning = upscaling_adapter(level, torch.device("cpu"))(images, CAPTIONS, 0)
        want = alphas[level].sqrt() * small + (1 - alphas[level]).sqrt() * draw
        assert conditioning.channels is not None
        assert conditioning.class_labels is not None
        torch.testing.assert_close(conditioning.channels, want, rtol=1e-5, atol=1e-5)
        assert conditioning.class_labels.tolist() == [level, level]


def test_low_resolution_is_antialiased() -> None:
    stripes = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255  # too fine for the small image: only their mean may remain
    inner = low_resolution(stripes)[0, :, 2:-2].astype(float)
    assert abs(inner - 127.5).max() < 8


def keys_cubic(distance: torch.Tensor) -> torch.Tensor:
    """Weight of a sample at a distance, Keys (1981) with a = -0.75, as OpenCV's INTER_CUBIC has it."""
    a, d = -0.75, distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def resampling(size: int, into: int) -> torch.Tensor:
    """Matrix [into, size] of a cubic resize with pixel centres at halves and repeated borders."""
    matrix = torch.zeros(into, size, dtype=torch.float64)
    for row in range(into):
        centre = (row + 0.5) * size / into - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weight = keys_cubic(torch.tensor(centre - tap, dtype=torch.float64))
            matrix[row, min(max(tap, 0), size - 1)] += weight
    return matrix


@pytest.mark.parametrize("size", [64, 96, 23])
def test_the_estimators_input_is_resized_as_opencv_does_without_antialiasing(size: int) -> None:
    signed = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = resampling(size, 40)
    want = torch.einsum("ij,bcjk,lk->bcil", matrix, signed, matrix)
    torch.testing.assert_close(estimator_input(signed.float(), 40).double(), want, rtol=1e-5, atol=1e-5)


def test_an_image_of_the_estimators_size_is_left_alone() -> None:
    signed = torch.rand(1, 3, 40, 40)
    assert estimator_input(signed, 40) is signed
