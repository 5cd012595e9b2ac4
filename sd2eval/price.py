"""What a sweep would cost, before anything is spent: `dry_run=true`.

Operations are counted on the meta device, so that no weights are needed; time is what this machine's measured
rate makes of them; energy and CO2 are assumptions, and say so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, DPTConfig, DPTForDepthEstimation

from sd2eval.checkpoints import sources, vae_factor
from sd2eval.checkpoints.architecture import load_architecture
from sd2eval.checkpoints.text import penultimate_config
from sd2eval.config import CheckpointConfig, SweepConfig
from sd2eval.energy import assumed_watts, grid_intensity
from sd2eval.footprint import disk_bytes
from sd2eval.sampler import unet_calls

EFFICIENCY = 0.5
"""Share of the matrix-product rate that a UNet too large to be timed here is assumed to reach."""
TIMED_PARAMETERS = 50_000_000
"""A UNet up to this size is timed itself."""
GPU_WATTS = 400.0
"""Assumed where the driver names no power limit."""


@dataclass(frozen=True)
class Price:
    """The cost of one checkpoint's cells."""

    name: str
    images: int
    unet_calls: int
    """Rows: one latent through the UNet once."""
    flops: float
    """Floating point operations, two per multiply-add, of everything but the extractors."""
    hours: float


@dataclass(frozen=True)
class Estimate:
    """The cost of a sweep."""

    prices: list[Price]
    disk_bytes: float
    watts: float
    kg_per_kwh: float
    basis: str
    """Where the hours come from."""

    @property
    def hours(self) -> float:
        """Of all checkpoints."""
        return sum(price.hours for price in self.prices)

    @property
    def kwh(self) -> float:
        """At the assumed power."""
        return self.hours * self.watts / 1000


@dataclass(frozen=True)
class Architecture:
    """A checkpoint's networks without weights, on the meta device."""

    definition: CheckpointConfig
    unet: Any
    vae: Any
    text: Any
    depth: Any

    def unet_flops(self) -> int:
        """Return the operations of one row through the UNet."""
        size = self.definition.resolution // vae_factor(self.vae)
        return count(lambda: self.unet(*unet_inputs(self.unet, self.text, size, 1, "meta")))

    def image_flops(self) -> int:
        """Return the operations of decoding one image."""
        size = self.definition.resolution // vae_factor(self.vae)
        latent = torch.empty(1, self.vae.config.latent_channels, size, size, device="meta")
        return count(lambda: self.vae.decode(latent))

    def caption_flops(self) -> int:
        """Return the operations that a caption's scales share: text, depth, the masked image's encoding."""
        context = self.text.config.max_position_embeddings
        total = count(lambda: self.text(input_ids=torch.zeros(1, context, dtype=torch.long, device="meta")))
        if self.depth is not None:
            size = self.depth.config.image_size
            total += count(lambda: self.depth(pixel_values=torch.empty(1, 3, size, size, device="meta")))
        if self.definition.conditioning == "inpainting":
            resolution = self.definition.resolution
            total += count(lambda: self.vae.encode(torch.empty(1, 3, resolution, resolution, device="meta")))
        return total


def architecture(definition: CheckpointConfig) -> Architecture:
    """Build a checkpoint's networks on the meta device, from its folder or else from bundled configs."""
    configs = {
        name: _component_config(definition, name)
        for name in ("unet", "vae", "text_encoder", "depth_estimator")
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet"])
        vae = AutoencoderKL.from_config(configs["vae"])
        text = CLIPTextModel(_text_config(configs["text_encoder"]))
        depth = None
        if definition.conditioning == "depth":
            depth = DPTForDepthEstimation(DPTConfig(**configs["depth_estimator"]))
    return Architecture(definition, unet, vae, text, depth)


def _component_config(definition: CheckpointConfig, name: str) -> dict[str, Any]:
    override = definition.components.get(name)
    root = sources.local_path(override or definition.source)
    file = None if root is None else (root if override else root / name) / "config.json"
    if file is not None and file.exists():
        return dict(json.loads(file.read_text()))
    if definition.architecture is None:
        return {}
    return getattr(load_architecture(definition.architecture), name) or {}


def _text_config(config: dict[str, Any]) -> CLIPTextConfig:
    """Accept both layouts of a text encoder's config, OpenCLIP's and transformers'."""
    return penultimate_config(config) if "width" in config else CLIPTextConfig(**config)


def unet_inputs(unet: Any, text: Any, size: int, rows: int, device: str) -> tuple[Any, ...]:
    """Return the positional inputs of a UNet call: sample, timestep, text, class label or None."""
    sample = torch.zeros(rows, unet.config.in_channels, size, size, device=device)
    hidden = torch.zeros(
        rows, text.config.max_position_embeddings, unet.config.cross_attention_dim, device=device
    )
    labels = None
    if unet.config.num_class_embeds:
        labels = torch.zeros(rows, dtype=torch.long, device=device)
    return sample, torch.zeros((), dtype=torch.long, device=device), hidden, labels


def count(call: Callable[[], Any]) -> int:
    """Return the floating point operations of a call on the meta device, two per multiply-add."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def estimate(
    config: SweepConfig, definitions: list[CheckpointConfig], n: int, device: torch.device, dtype: str
) -> Estimate:
    """Price a sweep on this machine.

    Args:
        config: the sweep.
        n: captions per cell.
        definitions: its checkpoints.
        device: where it would run.
        dtype: of UNet and text encoder.
    """
    scales = config.guidance_scales
    prices, bases = [], []
    for definition in definitions:
        networks = architecture(definition)
        per_call = networks.unet_flops()
        calls = unet_calls(n, scales, config.sampler.steps)
        flops = calls * per_call + n * len(scales) * networks.image_flops() + n * networks.caption_flops()
        rate, basis = _rate(networks, per_call, device, getattr(torch, dtype))
        prices.append(Price(definition.name, n * len(scales), calls, flops, flops / rate / 3600))
        bases.append(basis)
    return Estimate(
        prices,
        disk_bytes(config, n * len(scales) * len(definitions)),
        _watts(device),
        grid_intensity(config.energy.country),
        bases[0],
    )


def _rate(
    networks: Architecture, per_call: int, device: torch.device, dtype: torch.dtype
) -> tuple[float, str]:
    """Return floating point operations per second and where the figure comes from."""
    parameters = sum(parameter.numel() for parameter in networks.unet.parameters())
    if parameters > TIMED_PARAMETERS:
        rate = EFFICIENCY * _matmul_rate(device, dtype)
        return rate, f"{EFFICIENCY:.0%} of the matrix-product rate measured here"
    unet = networks.unet.to_empty(device=device).to(dtype).eval()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    size = networks.definition.resolution // vae_factor(networks.vae)
    rows = 64
    inputs = unet_inputs(unet, networks.text, size, rows, str(device))
    seconds = _seconds(lambda: unet(inputs[0].to(dtype), inputs[1], inputs[2].to(dtype), inputs[3]), device)
    return rows * per_call / seconds, "the UNets timed here"


@cache
def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 2048
    a = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / _seconds(lambda: a @ a, device)


@torch.inference_mode()
def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of three timings after a warm-up."""
    call()
    timings = []
    for _ in range(3):
        _wait(device)
        begin = time.perf_counter()
        call()
        _wait(device)
        timings.append(time.perf_counter() - begin)
    return min(timings)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _watts(device: torch.device) -> float:
    if device.type != "cuda":
        return assumed_watts()
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
        return float(pynvml.nvmlDeviceGetPowerManagementLimit(handle)) / 1000 + assumed_watts()
    except Exception:  # the driver's library is missing or too old: the assumption is printed as one
        return GPU_WATTS + assumed_watts()
