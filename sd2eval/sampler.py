"""DDIM for a sweep: all guidance scales of a caption in one batch of fixed shape.

The scales of a caption share the starting noise, the text encoding, the conditioning and the first step's two
predictions, which do not depend on the scale. Rows of a batch are (caption, scale) trajectories; the last
batch is padded, so that every UNet call of a run has one shape and no result depends on where a batch ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from sd2eval.checkpoints.conditioning import Conditioning


@dataclass(frozen=True)
class Inputs:
    """What the trajectories of a block of captions start from."""

    noise: torch.Tensor
    """float32 [N, C, h, w], one draw per caption."""
    cond: torch.Tensor
    """Hidden states of the captions, [N, context, width]."""
    uncond: torch.Tensor
    """Hidden states of the empty prompt, [1, context, width]."""
    conditioning: Conditioning
    step_noise: Callable[[int], torch.Tensor] | None = None
    """For eta > 0: step index (0..steps-1) to float32 noise [N, C, h, w]."""


@dataclass(frozen=True)
class _Batch:
    """Fixed-shape rows: which caption each is of, at which scale, and how many are not padding."""

    captions: torch.Tensor
    scales: torch.Tensor
    count: int


@torch.inference_mode()
def sample(
    unet: Any,
    scheduler: Any,
    inputs: Inputs,
    scales: Sequence[float],
    *,
    steps: int,
    eta: float = 0.0,
    batch_size: int = 16,
    on_batch: Callable[[int], None] = lambda images: None,
    on_step: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Sample every caption at every guidance scale (DDIM, Song et al. 2021; guidance, Ho & Salimans 2022).

    Args:
        unet: diffusers UNet2DConditionModel.
        scheduler: diffusers DDIMScheduler of the checkpoint.
        inputs: noise, text and conditioning of N captions, on the UNet's device.
        scales: S guidance scales s in u + s (c - u); 1 uses the conditional prediction alone.
        steps: DDIM steps.
        eta: 0 is deterministic.
        batch_size: trajectories per UNet call (twice as many rows: unconditional and conditional).
        on_batch: called with the number of finished trajectories after each batch.
        on_step: called before each step of a batch; may raise to stop.

    Returns:
        float32 latents [N, S, C, h, w].
    """
    scheduler.set_timesteps(steps)
    first = _first_predictions(unet, scheduler, inputs, batch_size)
    captions = len(inputs.noise)
    batches = list(_batches(captions, scales, batch_size, inputs.noise.device))
    finished = []
    drawn = _side_by_side(
        lambda batch: _trajectories(unet, scheduler, inputs, first, batch, eta, on_step),
        batches,
        inputs.noise.device,
    )
    for batch, latents in zip(batches, drawn, strict=True):
        finished.append(latents[: batch.count])
        on_batch(batch.count)
    return torch.cat(finished).reshape(captions, len(scales), *inputs.noise.shape[1:])


def unet_calls(captions: int, scales: Sequence[float], steps: int) -> int:
    """Return the UNet evaluations (rows, not batches) that `sample` needs, padding aside."""
    shared = 2 * captions
    return shared + 2 * captions * len(scales) * (steps - 1)


def _side_by_side(
    draw: Callable[[_Batch], torch.Tensor], batches: Sequence[_Batch], device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield the drawn batches in their order; on a CPU one batch per core at a time, each on one thread.

    That is faster than all cores on one batch (`benchmarks/threads.py`), and the order of its sums does not
    depend on how many cores there are.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(batches) == 1:
        yield from map(draw, batches)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(torch.inference_mode()(draw), batches)  # the mode belongs to a thread
    finally:
        torch.set_num_threads(threads)


def _batches(captions: int, scales: Sequence[float], size: int, device: torch.device) -> Iterator[_Batch]:
    owner = torch.arange(captions, device=device).repeat_interleave(len(scales))
    scale = torch.tensor(list(scales), dtype=torch.float32, device=device).repeat(captions)
    for start in range(0, len(owner), size):
        rows = torch.arange(start, start + size, device=device).clamp_max(
            len(owner) - 1
        )  # repeat the last row
        yield _Batch(owner[rows], scale[rows], min(size, len(owner) - start))


def _first_predictions(
    unet: Any, scheduler: Any, inputs: Inputs, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the unconditional and conditional predictions at the first timestep, one per caption."""
    pairs = []
    for batch in _batches(len(inputs.noise), [1.0], size, inputs.noise.device):
        predict = _predictor(unet, inputs, batch.captions)
        uncond, cond = predict(inputs.noise[batch.captions], scheduler.timesteps[0])
        pairs.append((uncond[: batch.count], cond[: batch.count]))
    unconds, conds = zip(*pairs, strict=True)
    return torch.cat(unconds), torch.cat(conds)


def _trajectories(
    unet: Any,
    scheduler: Any,
    inputs: Inputs,
    first: tuple[torch.Tensor, torch.Tensor],
    batch: _Batch,
    eta: float,
    on_step: Callable[[], None],
) -> torch.Tensor:
    predict = _predictor(unet, inputs, batch.captions)
    latents = inputs.noise[batch.captions]
    for index, timestep in enumerate(scheduler.timesteps):
        on_step()
        if index == 0:
            uncond, cond = first[0][batch.captions], first[1][batch.captions]
        else:
            uncond, cond = predict(latents, timestep)
        extra = inputs.step_noise(index)[batch.captions] if eta > 0 and inputs.step_noise else None
        latents = scheduler.step(
            guide(uncond, cond, batch.scales), timestep, latents, eta=eta, variance_noise=extra
        ).prev_sample
    return latents


def guide(uncond: torch.Tensor, cond: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return u + s (c - u) per row, in float32; at s = 1 exactly c, as the original skips guidance there."""
    scale = scales.view(-1, *(1,) * (cond.ndim - 1))
    uncond, cond = uncond.float(), cond.float()
    return torch.where(scale == 1.0, cond, uncond + scale * (cond - uncond))


def _predictor(
    unet: Any, inputs: Inputs, captions: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return a function of (latents [B, C, h, w], timestep) to the two raw predictions of fixed rows.

    Whatever stays the same over the steps is laid out once.
    """
    text = torch.cat([inputs.uncond.expand(len(captions), -1, -1), inputs.cond[captions]]).to(unet.dtype)
    fixed = inputs.conditioning.rows(torch.cat([captions, captions]))
    channels = None if fixed.channels is None else fixed.channels.to(unet.dtype)

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = latents.to(unet.dtype).repeat(2, 1, 1, 1)
        if channels is not None:
            rows = torch.cat([rows, channels], dim=1)
        rows = rows.contiguous(memory_format=torch.channels_last)
        output = unet(rows, timestep, encoder_hidden_states=text, class_labels=fixed.class_labels).sample
        uncond, cond = output.chunk(2)
        return uncond, cond

    return predict
