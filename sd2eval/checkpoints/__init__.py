"""Checkpoints: weights on diffusers' classes, the original's DDIM settings, and their conditioning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from sd2eval.checkpoints.conditioning import (
    Adapter,
    Conditioning,
    depth_adapter,
    inpainting_adapter,
    upscaling_adapter,
)
from sd2eval.checkpoints.identity import Weights, find_weights, identify
from sd2eval.checkpoints.networks import Networks, load_networks
from sd2eval.checkpoints.prediction import check_prediction
from sd2eval.checkpoints.single_file import EXTRA_CHANNELS
from sd2eval.checkpoints.sources import Sources, resolve
from sd2eval.checkpoints.text import TextEncoder
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError

# Their progress bars and hints about optional packages would tear the sweep's own display.
for _logging in (diffusers_logging, transformers_logging):
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()


@dataclass(frozen=True)
class Checkpoint:
    """Everything the sampler needs of one checkpoint, loaded."""

    definition: CheckpointConfig
    unet: Any
    vae: Any
    text_encoder: TextEncoder
    scheduler: Any
    adapter: Adapter | None
    """None for a checkpoint that sees only the text."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one latent."""
        size = self.definition.resolution // vae_factor(self.vae)
        return (self.vae.config.latent_channels, size, size)

    def uncond(self) -> torch.Tensor:
        """Return the hidden states of the empty prompt, [1, context, width]."""
        return self.text_encoder([""])[0]

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents [N, C, h, w] to images float32 [N, 3, R, R], about [-1, 1], unclamped."""
        scaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        decoded: torch.Tensor = self.vae.decode(scaled).sample.float()
        return decoded


def ddim_scheduler(definition: CheckpointConfig) -> Any:
    """Return the DDIM of the original code: timesteps 981, 961, ..., 1 at 50 steps, no clipping."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=definition.beta_start,
        beta_end=definition.beta_end,
        beta_schedule="scaled_linear",
        prediction_type=definition.prediction_type,
        timestep_spacing="leading",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )


def vae_factor(vae: Any) -> int:
    """Return how many times smaller a latent is than its image."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def load(
    definition: CheckpointConfig, device: torch.device, dtype: torch.dtype, found: Sources | None = None
) -> Checkpoint:
    """Load a checkpoint.

    Args:
        definition: which weights and how to sample them.
        device: where it will run.
        dtype: of UNet and text encoder; the autoencoder stays in float32, where half precision can overflow.
        found: its files; None finds, and if need be fetches, them.

    Raises:
        InputError: a part is missing or is not what the definition says.
    """
    parts = load_networks(definition, found or resolve(definition), dtype)
    checkpoint = assemble(definition, parts, device)
    return replace(checkpoint, adapter=_adapter(definition, parts, device))


def assemble(definition: CheckpointConfig, parts: Networks, device: torch.device) -> Checkpoint:
    """Put loaded networks together on a device, without what turns an image into conditioning.

    Raises:
        InputError: they do not fit each other or the definition.
    """
    _check_channels(definition, parts.unet, parts.vae, parts.text_encoder)
    for network in (parts.unet, parts.vae, parts.text_encoder.model, parts.depth_estimator):
        if network is not None:
            network.to(device)
    if device.type == "cpu":
        parts.unet.fuse_qkv_projections()  # one product instead of three: the same sums, a tenth faster here
        # The CPU's channels-last group norm loses digits where a feature is nearly constant, such as in the
        # grey hole of a masked image: 9e-5 of the encoder's output against 2e-6.
        parts.vae.encoder.to(memory_format=torch.contiguous_format)
    return Checkpoint(
        definition=definition,
        unet=parts.unet,
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        scheduler=ddim_scheduler(definition),
        adapter=None,
    )


def _check_channels(definition: CheckpointConfig, unet: Any, vae: Any, text: TextEncoder) -> None:
    """Refuse a UNet of another kind before it samples something else than it says."""
    expected = vae.config.latent_channels + EXTRA_CHANNELS[definition.conditioning]
    if unet.config.in_channels != expected:
        raise InputError(
            f"checkpoint '{definition.name}': conditioning={definition.conditioning} needs a UNet with "
            f"{expected} input channels, {definition.source} has {unet.config.in_channels}"
        )
    width = text.model.config.hidden_size
    if unet.config.cross_attention_dim != width:
        raise InputError(
            f"checkpoint '{definition.name}': the UNet attends to {unet.config.cross_attention_dim} text "
            f"features, the text encoder gives {width}"
        )


def _adapter(definition: CheckpointConfig, parts: Networks, device: torch.device) -> Adapter | None:
    size = definition.resolution // vae_factor(parts.vae)
    if definition.conditioning == "depth":
        if parts.depth_estimator is None:
            raise InputError(
                f"checkpoint '{definition.name}': has no depth estimator; name one: "
                "+checkpoint.components.depth_estimator=FOLDER (transformers' DPT hybrid)"
            )
        return depth_adapter(parts.depth_estimator, size)
    if definition.conditioning == "inpainting":
        return inpainting_adapter(parts.vae, size)
    if definition.conditioning == "upscaling":
        if definition.noise_level is None:
            raise InputError(f"checkpoint.noise_level: '{definition.name}' needs one (the demo uses 20)")
        return upscaling_adapter(definition.noise_level, device)
    return None


__all__ = [
    "Adapter",
    "Checkpoint",
    "Conditioning",
    "Weights",
    "assemble",
    "check_prediction",
    "ddim_scheduler",
    "find_weights",
    "identify",
    "load",
    "vae_factor",
]
