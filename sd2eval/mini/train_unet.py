"""The five UNets: text to image at 64 and 96 pixels, and with depth, mask or low-resolution image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from sd2eval.mini.corpus import Corpus, load_corpus
from sd2eval.mini.files import load_float, log_entry, save_half
from sd2eval.mini.training import Recipe, Workshop, fit, generator

CAPTION_DROPOUT = 0.1
STEPS_OF_NOISE = 1000
#: Signal-to-noise ratio from which on a step weighs less in the loss.
MAX_SNR = 5.0
#: Highest noise level (exclusive) of the upscaler's low-resolution image.
MAX_NOISE_LEVEL = 350


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One checkpoint: what its UNet sees and predicts, and where its training starts."""

    recipe: Recipe
    scenes: int = 30_000
    size: int = 64
    vae: str = "vae"
    prediction: str = "epsilon"
    extra: str | None = None
    extra_channels: int = 0
    resume_from: str | None = None
    betas: tuple[float, float] = (0.00085, 0.012)


PLANS: dict[str, Plan] = {
    "512-base": Plan(recipe=Recipe(name="512-base", steps=6_000, batch=64, rate=1e-3, seed=41)),
    "768-v": Plan(
        recipe=Recipe(name="768-v", steps=1_400, batch=64, rate=5e-4, seed=42, ema=0.998),
        scenes=12_000,
        size=96,
        prediction="v_prediction",
        resume_from="512-base",
    ),
    "512-depth": Plan(
        recipe=Recipe(name="512-depth", steps=3_500, batch=64, rate=1e-3, seed=43, ema=0.998),
        extra="depth",
        extra_channels=1,
        resume_from="512-base",
    ),
    "512-inpainting": Plan(
        recipe=Recipe(name="512-inpainting", steps=3_000, batch=64, rate=1e-3, seed=44, ema=0.998),
        extra="inpainting",
        extra_channels=5,
        resume_from="512-base",
    ),
    "x4-upscaling": Plan(
        recipe=Recipe(name="x4-upscaling", steps=3_200, batch=48, rate=1e-3, seed=45, ema=0.998),
        vae="vae-x4",
        prediction="v_prediction",
        extra="lowres",
        extra_channels=3,
        betas=(0.0001, 0.02),
    ),
}


def build(plan: Plan) -> UNet2DConditionModel:
    """A fresh UNet in SD2's manner; ``attention_head_dim`` is, as in SD2's configs, the number of heads."""
    x4 = plan.extra == "lowres"
    down = ("DownBlock2D" if x4 else "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    return UNet2DConditionModel(
        sample_size=plan.size // (4 if x4 else 8),
        in_channels=4 + plan.extra_channels,
        out_channels=4,
        down_block_types=down,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D" if x4 else "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64) if x4 else (64, 64),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=128,
        use_linear_projection=True,
        num_class_embeds=STEPS_OF_NOISE if x4 else None,
    )


def train_unet(shop: Workshop, name: str) -> None:
    """Trains one checkpoint, writes ``<out>/<name>/unet/`` in diffusers' layout and logs it."""
    plan = PLANS[name]
    torch.manual_seed(plan.recipe.seed)
    model = build(plan)
    if plan.resume_from:
        start_from(model, load_float(weights_file(shop, plan.resume_from)))
    model.to(shop.device)
    corpus = load_corpus(
        shop,
        count=shop.steps(plan.scenes),
        size=plan.size,
        vae=plan.vae,
        extra=plan.extra,
        variant=list(PLANS).index(name),
    )
    entry = fit(shop, plan.recipe, model, _loss(plan, model, corpus, shop.device))
    log_entry(shop.out, name, entry | _describe(plan, model))
    save_half(dict(model.state_dict()), weights_file(shop, name))
    model.save_config(weights_file(shop, name).parent)


def weights_file(shop: Workshop, name: str) -> Path:
    """Where a checkpoint's UNet lies."""
    return shop.out / name / "unet" / "diffusion_pytorch_model.safetensors"


def _describe(plan: Plan, model: UNet2DConditionModel) -> dict[str, Any]:
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "prediction": plan.prediction,
        "pixels": plan.size,
        "scenes": plan.scenes,
        "resumed_from": plan.resume_from,
    }


def start_from(model: UNet2DConditionModel, weights: dict[str, Tensor]) -> None:
    """Loads another checkpoint's weights; input channels that it lacks start at zero, as in SD2."""
    first = weights["conv_in.weight"]
    missing = model.config["in_channels"] - first.shape[1]
    weights = weights | {"conv_in.weight": F.pad(first, (0, 0, 0, 0, 0, missing))}
    model.load_state_dict(weights)


def cumulative_alphas(betas: tuple[float, float]) -> Tensor:
    """alpha-bar of the "scaled_linear" schedule, float32 [1000]."""
    beta = torch.linspace(betas[0] ** 0.5, betas[1] ** 0.5, STEPS_OF_NOISE, dtype=torch.float64) ** 2
    return torch.cumprod(1 - beta, dim=0).float()


def _loss(
    plan: Plan, model: UNet2DConditionModel, corpus: Corpus, device: torch.device
) -> Callable[[int], Tensor]:
    alphas = cumulative_alphas(plan.betas)

    def loss(step: int) -> Tensor:
        draw = generator(plan.recipe.seed, 0, step)
        rows = torch.randint(len(corpus.latents), (plan.recipe.batch,), generator=draw)
        clean = corpus.latents[rows]
        noise = torch.randn(clean.shape, generator=draw)
        t = torch.randint(STEPS_OF_NOISE, (len(rows),), generator=draw)
        signal, sigma = _mix(alphas, t)
        noisy = signal * clean + sigma * noise
        target = noise if plan.prediction == "epsilon" else signal * noise - sigma * clean
        labels = None
        if plan.extra == "lowres":
            labels, low = _noised(corpus, rows, alphas, draw)
            noisy = torch.cat([noisy, low], dim=1)
        elif corpus.extra is not None:
            noisy = torch.cat([noisy, corpus.extra[rows]], dim=1)
        text = _drop_captions(corpus, rows, draw)
        inputs = [x.to(device) for x in (noisy, t, text)]
        predicted = model(*inputs, class_labels=None if labels is None else labels.to(device)).sample
        error = (predicted.float() - target.to(device)).pow(2).mean(dim=(1, 2, 3))
        return torch.mean(error * _weights(alphas[t], plan.prediction).to(device))

    return loss


def _weights(bar: Tensor, prediction: str) -> Tensor:
    """Min-SNR weights (Hang et al. 2023): without them, nearly clean latents dominate an epsilon loss.

    At those steps the noise is all but unpredictable and the picture is already settled.
    """
    snr = bar / (1 - bar)
    capped = snr.clamp(max=MAX_SNR)
    return capped / snr if prediction == "epsilon" else (capped + 1) / (snr + 1)


def _mix(alphas: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    bar = alphas[t][:, None, None, None]
    return bar.sqrt(), (1 - bar).sqrt()


def _noised(corpus: Corpus, rows: Tensor, alphas: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise levels, and the low-resolution images noised to them by the upscaler's own schedule."""
    assert corpus.extra is not None
    levels = torch.randint(MAX_NOISE_LEVEL, (len(rows),), generator=draw)
    signal, sigma = _mix(alphas, levels)
    low = corpus.extra[rows]
    return levels, signal * low + sigma * torch.randn(low.shape, generator=draw)


def _drop_captions(corpus: Corpus, rows: Tensor, draw: torch.Generator) -> Tensor:
    dropped = torch.rand(len(rows), generator=draw) < CAPTION_DROPOUT
    return torch.where(dropped[:, None, None], corpus.empty, corpus.text[rows].float())
