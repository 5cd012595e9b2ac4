"""What each kind of checkpoint sees besides the text: one adapter each, from the caption's own image.

Every adapter turns square RGB images into extra UNet channels and class labels. Conventions and their
sources are those of the original code; see `docs/checkpoints.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from sd2eval import masks, noise

UPSCALE = 4


@dataclass(frozen=True)
class Conditioning:
    """Inputs of the UNet that do not change over the steps."""

    channels: torch.Tensor | None = None
    """float [N, C, h, w], concatenated behind the latent; None for text-only checkpoints."""
    class_labels: torch.Tensor | None = None
    """int64 [N], the upscaler's noise level."""

    def rows(self, index: torch.Tensor) -> Conditioning:
        """Return the conditioning of some images, in the order of `index`."""
        return Conditioning(
            None if self.channels is None else self.channels[index],
            None if self.class_labels is None else self.class_labels[index],
        )


Adapter = Callable[[NDArray[np.uint8], Sequence[int], int], Conditioning]
"""Images uint8 [N, R, R, 3], caption ids and the run's seed to the conditioning."""


def network_batch(size: int) -> int:
    """Return how many images of `size` pixels go through a network at once: 16 of 64, fewer of larger."""
    return max(1, 16 * 64**2 // size**2)


def to_signed(images: NDArray[np.uint8]) -> torch.Tensor:
    """Return uint8 [N, H, W, 3] as float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def depth_adapter(estimator: Any, latent_size: int) -> Adapter:
    """Condition on the relative depth that `estimator` (MiDaS' dpt_hybrid in SD2) sees in the image."""
    size = estimator.config.image_size

    @torch.inference_mode()
    def condition(images: NDArray[np.uint8], caption_ids: Sequence[int], seed: int) -> Conditioning:
        signed = to_signed(images).to(estimator.device)  # MiDaS normalises with mean = std = 0.5: same range
        chunks = torch.split(estimator_input(signed, size), network_batch(size))
        depth = torch.cat([estimator(pixel_values=chunk).predicted_depth for chunk in chunks])
        return Conditioning(channels=normalized_depth(depth[:, None].float(), latent_size))

    return condition


def estimator_input(signed: torch.Tensor, size: int) -> torch.Tensor:
    """Resize images [N, 3, H, W] in [-1, 1] as the original does: like cv2.INTER_CUBIC, not antialiased."""
    if signed.shape[-2:] == (size, size):
        return signed
    return interpolate(signed, (size, size), mode="bicubic", align_corners=False)


def normalized_depth(depth: torch.Tensor, latent_size: int) -> torch.Tensor:
    """Resize depth [N, 1, H, W] to the latent grid, then stretch each sample to [-1, 1]."""
    small = interpolate(depth, (latent_size, latent_size), mode="bicubic", align_corners=False)
    low, high = small.amin((1, 2, 3), keepdim=True), small.amax((1, 2, 3), keepdim=True)
    # A flat depth map has no range to stretch; the original would divide by zero.
    return 2.0 * (small - low) / (high - low).clamp_min(torch.finfo(small.dtype).tiny) - 1.0


def inpainting_adapter(vae: Any, latent_size: int) -> Adapter:
    """Condition on a LaMa-style mask (1 = paint) and the latent of the image with a grey hole."""

    @torch.inference_mode()
    def condition(images: NDArray[np.uint8], caption_ids: Sequence[int], seed: int) -> Conditioning:
        size = images.shape[1]
        drawn = np.stack([masks.mask(seed, caption, size) for caption in caption_ids])
        mask = torch.from_numpy(drawn).float()[:, None]
        shape = (vae.config.latent_channels, latent_size, latent_size)
        draw = noise.normal(seed, caption_ids, "posterior", shape)
        return Conditioning(channels=inpainting_channels(vae, to_signed(images), mask, draw))

    return condition


@torch.inference_mode()
def inpainting_channels(
    vae: Any, signed: torch.Tensor, mask: torch.Tensor, draw: torch.Tensor
) -> torch.Tensor:
    """Return mask and masked latent, [N, 1 + C, h, w], on the autoencoder's device.

    Args:
        vae: the autoencoder.
        signed: images [N, 3, H, W] in [-1, 1].
        mask: [N, 1, H, W], 1 = paint.
        draw: standard normal [N, C, h, w]; the posterior is sampled with it.
    """
    hole = (signed * (mask < 0.5)).to(vae.device, vae.dtype)  # 0 is mid-grey
    chunks = torch.split(hole, network_batch(hole.shape[-1]))
    posteriors = [vae.encode(chunk).latent_dist for chunk in chunks]
    mean, std = (torch.cat([getattr(part, name) for part in posteriors]) for name in ("mean", "std"))
    latent = vae.config.scaling_factor * (mean + std * draw.to(mean))
    small = interpolate(mask, draw.shape[-2:], mode="nearest").to(latent)
    return torch.cat([small, latent], dim=1)


def upscaling_adapter(noise_level: int, device: torch.device) -> Adapter:
    """Condition on the image at a quarter of its size, noised to `noise_level` (0..999), and on the level."""

    def condition(images: NDArray[np.uint8], caption_ids: Sequence[int], seed: int) -> Conditioning:
        small = to_signed(low_resolution(images))
        draw = noise.normal(seed, caption_ids, "low_res", tuple(small.shape[1:]))
        level = torch.full((len(images),), noise_level, dtype=torch.int64)
        return Conditioning(
            channels=noised_low_resolution(small, draw, level).to(device), class_labels=level.to(device)
        )

    return condition


def noised_low_resolution(small: torch.Tensor, draw: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Noise images [N, 3, h, w] in [-1, 1] with `draw` to `level` [N] of the upscaler's own schedule."""
    schedule = DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear"
    )
    noised: torch.Tensor = schedule.add_noise(small, draw, level)
    return noised


def low_resolution(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink uint8 [N, R, R, 3] by 4 with antialiased bicubic; the card does not say how it did."""
    size = images.shape[1] // UPSCALE
    shrunk = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in shrunk])
