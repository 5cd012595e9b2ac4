"""Each known way to prepare an image's conditioning differently is found; see `test_mistakes`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch.nn.functional import interpolate

from sd2eval.checkpoints import conditioning
from tests.test_mistakes import found, latent_error, study


def inpainting_parts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    given = study("inpainting").given
    return (
        given("image"),
        given("mask"),
        given("posterior_noise"),
        study("inpainting").checkpoint.vae.config.scaling_factor,
    )


def channels(image: torch.Tensor, mask: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    return conditioning.inpainting_channels(study("inpainting").checkpoint.vae, image, mask, draw)


def reordered() -> torch.Tensor:
    right = channels(*inpainting_parts()[:3])
    return torch.cat([right[:, 1:], right[:, :1]], dim=1)


def inverted() -> torch.Tensor:
    image, mask, draw, _ = inpainting_parts()
    return torch.cat([1 - channels(image, mask, draw)[:, :1], channels(image, mask, draw)[:, 1:]], dim=1)


def mode() -> torch.Tensor:
    image, mask, draw, _ = inpainting_parts()
    return channels(image, mask, torch.zeros_like(draw))


def unscaled() -> torch.Tensor:
    image, mask, draw, factor = inpainting_parts()
    right = channels(image, mask, draw)
    return torch.cat([right[:, :1], right[:, 1:] / factor], dim=1)


def latent_of(image: torch.Tensor) -> torch.Tensor:
    _, mask, draw, _ = inpainting_parts()
    nothing = channels(image, torch.zeros_like(mask), draw)
    return torch.cat([channels(image, mask, draw)[:, :1], nothing[:, 1:]], dim=1)


def black_hole() -> torch.Tensor:
    image, mask, *_ = inpainting_parts()
    return latent_of(torch.where(mask >= 0.5, -1.0, image))


def unmasked() -> torch.Tensor:
    return latent_of(inpainting_parts()[0])


def area_mask() -> torch.Tensor:
    image, mask, draw, _ = inpainting_parts()
    right = channels(image, mask, draw)
    return torch.cat([interpolate(mask, right.shape[-2:], mode="area"), right[:, 1:]], dim=1)


@pytest.mark.parametrize(
    ("mistake", "cost"),
    [
        (reordered, 1.5e-1),
        (inverted, 1.3e-1),
        (mode, 6.8e-2),
        (unscaled, 2.5e-1),
        (black_hole, 4.3e-2),
        (area_mask, 2.3e-2),
        (unmasked, 7.5e-2),
    ],
)
def test_another_masked_image_is_found(mistake: Callable[[], torch.Tensor], cost: float) -> None:
    assert found(latent_error("inpainting", channels=mistake()), cost)


def low_resolution(**schedule: object) -> torch.Tensor:
    given = study("x4").given
    settings = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear"} | schedule
    scheduler = DDPMScheduler(num_train_timesteps=1000, **settings)
    noised: torch.Tensor = scheduler.add_noise(
        given("lowres"), given("lowres_noise"), given("noise_level_20")
    )
    return noised


def test_the_low_resolution_written_out_is_ours() -> None:
    given = study("x4").given
    ours = conditioning.noised_low_resolution(given("lowres"), given("lowres_noise"), given("noise_level_20"))
    assert torch.equal(ours, low_resolution())


@pytest.mark.parametrize(
    ("mistake", "cost"),
    [
        (lambda: study("x4").given("lowres"), 3.4e-2),
        (lambda: low_resolution(beta_schedule="linear"), 1.8e-2),
        (lambda: low_resolution(beta_start=0.00085, beta_end=0.012), 5.7e-2),
        (lambda: low_resolution() - study("x4").given("lowres") * 0.5 + 0.5, 2.4e-1),
    ],
)
def test_another_low_resolution_is_found(mistake: Callable[[], torch.Tensor], cost: float) -> None:
    assert found(latent_error("x4", channels=mistake()), cost)


@pytest.mark.parametrize(("label", "cost"), [(0, 4.6e-1), (21, 4.8e-1)])
def test_another_noise_level_label_is_found(label: int, cost: float) -> None:
    assert found(latent_error("x4", labels=torch.tensor([label, label])), cost)


def stretched(small: torch.Tensor) -> torch.Tensor:
    low, high = small.amin((1, 2, 3), keepdim=True), small.amax((1, 2, 3), keepdim=True)
    return 2 * (small - low) / (high - low) - 1


def resized(**how: object) -> torch.Tensor:
    size = study("depth").given("c_concat").shape[-2:]
    settings: dict[str, object] = {"mode": "bicubic", "align_corners": False} | how
    return interpolate(study("depth").given("depth_raw"), size, **settings)  # type: ignore[arg-type]


def with_epsilon() -> torch.Tensor:
    small = resized()
    low, high = small.amin((1, 2, 3), keepdim=True), small.amax((1, 2, 3), keepdim=True)
    return 2 * (small - low) / (high - low + 0.001) - 1


def normalised_first() -> torch.Tensor:
    size = study("depth").given("c_concat").shape[-2:]
    return interpolate(
        stretched(study("depth").given("depth_raw")), size, mode="bicubic", align_corners=False
    )


def over_the_batch() -> torch.Tensor:
    small = resized()
    return 2 * (small - small.min()) / (small.max() - small.min()) - 1


@pytest.mark.parametrize(
    ("mistake", "cost"),
    [
        (with_epsilon, 2.7e-5),
        (lambda: stretched(resized(mode="bilinear")), 9.0e-3),
        (lambda: stretched(resized(align_corners=True)), 5.0e-2),
        (lambda: stretched(resized(antialias=True)), 2.7e-2),
        (normalised_first, 2.4e-2),
        (lambda: (stretched(resized()) + 1) / 2, 6.3e-2),
        (over_the_batch, 9.5e-3),
        (lambda: -stretched(resized()), 1.4e-1),
    ],
)
def test_another_depth_channel_is_found(mistake: Callable[[], torch.Tensor], cost: float) -> None:
    assert found(latent_error("depth", channels=mistake()), cost)


def test_starting_from_the_noised_image_is_found() -> None:
    fixture, checkpoint = study("depth")
    clean = fixture.expected["s08_z0"]
    start = checkpoint.scheduler.add_noise(clean, fixture.given["x_T"], torch.tensor([981, 981]))
    assert found(latent_error("depth", start=start), 8.8e-3)


class Demo(DDIMScheduler):
    """The demo's schedule at strength 1.0: 49 of the 50 steps."""

    def set_timesteps(self, *arguments: object) -> None:
        super().set_timesteps(*arguments)
        self.timesteps = self.timesteps[1:]


def test_the_demos_49_steps_are_found() -> None:
    scheduler = Demo.from_config(study("depth").checkpoint.scheduler.config)
    assert found(latent_error("depth", scheduler=scheduler), 1.1e-1)
