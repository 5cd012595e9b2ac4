"""One shard: a block of captions of one checkpoint at every guidance scale, from noise to features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval import images, noise
from sd2eval.checkpoints import Checkpoint, Conditioning
from sd2eval.config import ProtocolConfig, SamplerConfig
from sd2eval.dataset import Dataset
from sd2eval.plan import Cell
from sd2eval.records import ImageRecord, Prompt
from sd2eval.sampler import Inputs, sample
from sd2eval.store import RunFolder

WRITERS = 2
"""Threads that compress PNG files."""

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Settings:
    """How the shards of a run are sampled."""

    scales: Sequence[float]
    sampler: SamplerConfig
    seed: int
    batch_size: int
    """Trajectories per UNet call."""


@dataclass(frozen=True)
class Pixels:
    """The decoded images of a shard at the protocol's resolution."""

    images: Images
    """uint8 [N, S, R, R, 3]; an invalid image is black and must not be used."""
    valid: NDArray[np.bool_]
    """[N, S]"""


@dataclass(frozen=True)
class Given:
    """What a checkpoint is shown of the captions' own images."""

    squares: Images | None
    """uint8 [N, R, R, 3] at the checkpoint's resolution; None where it sees only the text."""
    conditioning: Conditioning


def given(checkpoint: Checkpoint, dataset: Dataset, prompts: Sequence[Prompt], seed: int) -> Given:
    """Read the captions' own images and make of them what the checkpoint is conditioned on.

    Raises:
        InputError: an image cannot be read.
    """
    if checkpoint.adapter is None:
        return Given(None, Conditioning())
    size = checkpoint.definition.resolution
    squares = np.stack([images.square(images.load_rgb(dataset.image(prompt)), size) for prompt in prompts])
    return Given(squares, checkpoint.adapter(squares, [prompt.caption_id for prompt in prompts], seed))


def sample_latents(
    checkpoint: Checkpoint,
    conditioning: Conditioning,
    prompts: Sequence[Prompt],
    settings: Settings,
    on_batch: Callable[[int], None],
    on_step: Callable[[], None],
) -> tuple[torch.Tensor, list[bool]]:
    """Sample every prompt at every scale.

    Returns:
        float32 latents [N, S, C, h, w], and whether each caption was truncated.
    """
    seed, captions = settings.seed, [prompt.caption_id for prompt in prompts]
    shape = checkpoint.latent_shape
    device = checkpoint.unet.device
    cond, truncated = checkpoint.text_encoder([prompt.text for prompt in prompts])
    inputs = Inputs(
        noise=noise.normal(seed, captions, "latent", shape).to(device),
        cond=cond,
        uncond=checkpoint.uncond(),
        conditioning=conditioning,
        step_noise=lambda step: noise.normal(seed, captions, f"eta/{step}", shape).to(device),
    )
    latents = sample(
        checkpoint.unet,
        checkpoint.scheduler,
        inputs,
        settings.scales,
        steps=settings.sampler.steps,
        eta=settings.sampler.eta,
        batch_size=settings.batch_size,
        on_batch=on_batch,
        on_step=on_step,
    )
    return latents, truncated


def decode(checkpoint: Checkpoint, latents: torch.Tensor, protocol: ProtocolConfig, size: int) -> Pixels:
    """Decode latents [N, S, C, h, w], `size` at a time, to the 8-bit images that every metric sees."""
    flat = latents.flatten(0, 1)
    drawn, valid = [], []
    for chunk in torch.split(flat, size):
        decoded = checkpoint.decode(chunk).cpu().numpy()
        finite = np.isfinite(decoded).all(axis=(1, 2, 3))  # NaN cast to 8 bits would be a black image
        decoded[~finite] = -1.0
        pixels = images.to_uint8(decoded, mode=protocol.quantize)  # type: ignore[arg-type]
        drawn += [images.for_protocol(image, protocol) for image in pixels]
        valid.append(finite)
    shape = latents.shape[:2]
    return Pixels(np.stack(drawn).reshape(*shape, *drawn[0].shape), np.concatenate(valid).reshape(shape))


def records(
    prompts: Sequence[Prompt], scales: Sequence[float], pixels: Pixels, truncated: Sequence[bool]
) -> list[ImageRecord]:
    """Return the manifest's records, caption by caption, scale by scale."""
    return [
        ImageRecord(
            caption_id=prompt.caption_id,
            guidance_scale=scale,
            sha256=images.digest(pixels.images[row, column]),
            truncated=truncated[row],
            invalid="" if pixels.valid[row, column] else "non-finite",
        )
        for row, prompt in enumerate(prompts)
        for column, scale in enumerate(scales)
    ]


def write_images(
    store: RunFolder, checkpoint: str, prompts: Sequence[Prompt], scales: Sequence[float], pixels: Pixels
) -> None:
    """Write every valid image as `<caption id>.png` in its cell's folder."""
    for scale in scales:
        store.image_folder(Cell(checkpoint, scale)).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda job: images.write_png(*job), _files(store, checkpoint, prompts, scales, pixels)))


def _files(
    store: RunFolder, checkpoint: str, prompts: Sequence[Prompt], scales: Sequence[float], pixels: Pixels
) -> Iterator[tuple[object, Images]]:
    for column, scale in enumerate(scales):
        folder = store.image_folder(Cell(checkpoint, scale))
        for row, prompt in enumerate(prompts):
            if pixels.valid[row, column]:
                yield folder / f"{prompt.caption_id}.png", pixels.images[row, column]
