"""The two autoencoders: f8 for the 8x8 latents of most checkpoints, f4 for the upscaler's 16x16 latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from sd2eval.mini.files import log_entry, save_half
from sd2eval.mini.scenes import RENDERED, SceneSet, load_scenes
from sd2eval.mini.training import Recipe, Workshop, fit, generator

#: Weight of the KL term per latent number: just enough to keep latents compact and their noise below what the
#: decoder can afford.
KL_WEIGHT = 5e-5

RECIPES = {
    "vae": Recipe(name="vae", steps=4_000, batch=16, rate=1.5e-3, seed=11, precision=torch.bfloat16),
    "vae-x4": Recipe(name="vae-x4", steps=2_000, batch=16, rate=1.5e-3, seed=12, precision=torch.bfloat16),
}
CHANNELS = {"vae": (16, 32, 64, 64), "vae-x4": (16, 32, 32)}


def build(name: str) -> AutoencoderKL:
    """A fresh autoencoder: 3 x H x W in [-1, 1] <-> 4 x H/f x W/f; at least two channels per norm group."""
    channels = CHANNELS[name]
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def train_vae(shop: Workshop, name: str) -> None:
    """Trains, measures the latents' scale, writes ``<out>/<name>/`` in diffusers' layout and logs it."""
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    model = build(name).to(shop.device)
    scenes = load_scenes(shop.work, shop.steps(RENDERED[64]), 64)
    entry = fit(shop, recipe, model, _loss(recipe, model, scenes, shop.device))
    latents = encode_all(model, scenes.images[: shop.steps(4096)], generator(recipe.seed, 1))
    model.register_to_config(scaling_factor=round(float(1 / latents.std()), 5))
    log_entry(shop.out, name, entry | {"parameters": sum(p.numel() for p in model.parameters())})
    save_vae(model, shop, name)


def _loss(
    recipe: Recipe, model: AutoencoderKL, scenes: SceneSet, device: torch.device
) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        draw = generator(recipe.seed, 0, step)
        rows = torch.randint(len(scenes), (recipe.batch,), generator=draw).numpy()
        images = to_float(scenes.images[rows]).to(device)
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw).to(device)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        error = F.mse_loss(decoded.float(), images)
        return error.add(kl, alpha=KL_WEIGHT)

    return loss


def to_float(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Float [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3], rounded."""
    array: NDArray[np.uint8] = (
        images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return array


@torch.no_grad()
def encode_all(
    model: AutoencoderKL, images: NDArray[np.uint8], draw: torch.Generator, batch: int = 64
) -> Tensor:
    """Posterior samples (not yet scaled) of uint8 [N, H, W, 3]: float32 [N, 4, H/f, W/f] on the CPU."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(images), batch):
        posterior = model.encode(to_float(images[start : start + batch]).to(device)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw)
        parts.append(posterior.mean.cpu() + posterior.std.cpu() * noise)
    return torch.cat(parts)


def save_vae(model: AutoencoderKL, shop: Workshop, name: str) -> None:
    """``config.json`` and float16 weights, as diffusers' ``from_pretrained`` reads them."""
    folder = shop.out / name
    save_half(dict(model.state_dict()), folder / "diffusion_pytorch_model.safetensors")
    model.save_config(folder)


def load_vae(shop: Workshop, name: str) -> AutoencoderKL:
    """The finished autoencoder as stored, in float32, without gradients."""
    model = AutoencoderKL.from_pretrained(shop.out / name, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    model.eval().requires_grad_(False)
    return model.to(shop.device)


def psnr(model: AutoencoderKL, images: NDArray[np.uint8]) -> float:
    """Mean PSNR in dB of the posterior mean's rounded reconstruction, uint8 [N, H, W, 3]."""
    with torch.no_grad():
        device = next(model.parameters()).device
        decoded = model.decode(model.encode(to_float(images).to(device)).latent_dist.mean).sample
    error = (to_uint8(decoded).astype(np.float64) - images) ** 2
    return float(np.mean(10 * np.log10(255.0**2 / error.mean(axis=(1, 2, 3)))))
