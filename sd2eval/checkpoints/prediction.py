"""Does a network predict what its definition says? Its weights do not tell, its answer to noise does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sd2eval import noise
from sd2eval.errors import InputError

if TYPE_CHECKING:
    from sd2eval.checkpoints import Checkpoint

TIMESTEP = 981
"""The first of 50 DDIM steps, where the latent is all noise."""
LATENT_SIZE = 32
THRESHOLD = 0.5


@torch.inference_mode()
def noise_cosine(checkpoint: Checkpoint) -> float:
    """Return the cosine of pure noise and the UNet's answer to it.

    At the first step x_t is noise. The noise to be predicted is then x_t itself (cosine near 1: 0.999 for the
    mini family), while v = alpha epsilon - sigma x_0 (Salimans & Ho 2022) is nearly -x_0, unrelated to it
    (below 0.12).
    """
    unet, definition = checkpoint.unet, checkpoint.definition
    latent = noise.normal(0, [0], "latent", (checkpoint.latent_shape[0], LATENT_SIZE, LATENT_SIZE))
    extra = torch.zeros(1, unet.config.in_channels - latent.shape[1], LATENT_SIZE, LATENT_SIZE)
    level = definition.noise_level
    answer = unet(
        torch.cat([latent, extra], dim=1).to(unet.device, unet.dtype),
        torch.tensor(TIMESTEP, device=unet.device),
        encoder_hidden_states=checkpoint.uncond(),
        class_labels=None if level is None else torch.tensor([level], device=unet.device),
    ).sample
    return float(
        torch.nn.functional.cosine_similarity(answer.float().cpu().flatten(), latent.flatten(), dim=0)
    )


def check_prediction(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that predicts something else than its definition says.

    Raises:
        InputError: it answers noise as the other kind does.
    """
    definition, cosine = checkpoint.definition, noise_cosine(checkpoint)
    if not math.isfinite(cosine):
        raise InputError(
            f"checkpoint '{definition.name}' answers pure noise with NaN or infinity; its weights are "
            "damaged, or too large for this dtype (try dtype=float32)"
        )
    if definition.prediction_type == "v_prediction" and cosine > THRESHOLD:
        raise InputError(
            f"checkpoint '{definition.name}' predicts epsilon, not v: given pure noise it returns that noise "
            f"(cosine {cosine:.3f}); say checkpoint.prediction_type=epsilon, or take the right file"
        )
    if definition.prediction_type == "epsilon" and cosine <= THRESHOLD:
        raise InputError(
            f"checkpoint '{definition.name}' does not predict epsilon: given pure noise it does not return "
            f"that noise (cosine {cosine:.3f}); if it predicts v, say checkpoint.prediction_type=v_prediction"
        )
