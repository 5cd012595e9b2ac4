"""What the UNets train on: latents, text encodings and conditioning of the training scenes, computed once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from sd2eval.checkpoints.conditioning import low_resolution, normalized_depth
from sd2eval.masks import mask as random_mask
from sd2eval.mini.scenes import RENDERED, SceneSet, load_scenes
from sd2eval.mini.tokenizer import load_tokenizer
from sd2eval.mini.train_clip import encode_condition, load_text_encoder
from sd2eval.mini.train_heads import estimate_depth, load_depth_estimator
from sd2eval.mini.train_vae import encode_all, load_vae, to_float
from sd2eval.mini.training import Workshop, generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The training scenes as a UNet sees them.

    ``latents`` are scaled, float32 [n, 4, h, w]; ``text`` float16 [n, 32, 128]; ``empty`` encodes
    the caption "".
    ``extra`` is the image conditioning: depth [n, 1, h, w], inpainting mask and masked latents [n, 5, h, w],
    or the clean low-resolution images [n, 3, h, w]; None for text-only checkpoints.
    """

    latents: Tensor
    text: Tensor
    empty: Tensor
    extra: Tensor | None


def load_corpus(
    shop: Workshop, *, count: int, size: int, vae: str, extra: str | None, variant: int
) -> Corpus:
    """Computes, or reads back from ``.work``, the corpus of the first ``count`` scenes at ``size`` pixels."""
    scenes = load_scenes(shop.work, shop.steps(RENDERED[size]), size).first(count)
    stem = f"{count}_{size}"
    latents = _cached(shop.work / f"latents_{vae}_{stem}.safetensors", lambda: _latents(shop, scenes, vae))
    text = _cached(
        shop.work / f"text_{variant}_{count}.safetensors", lambda: _texts(shop, scenes.captions(variant))
    )
    make = {"depth": _depths, "inpainting": _inpaintings, "lowres": _lowres}
    maker = make[extra] if extra else None
    conditioning = (
        _cached(shop.work / f"{extra}_{stem}.safetensors", lambda: maker(shop, scenes)) if maker else None
    )
    return Corpus(latents=latents, text=text, empty=_texts(shop, [""]).float(), extra=conditioning)


def _cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file({"value": make().contiguous()}, part)
        part.replace(path)
    value: Tensor = load_file(path)["value"]
    return value


def _latents(shop: Workshop, scenes: SceneSet, vae: str) -> Tensor:
    model = load_vae(shop, vae)
    scale = float(model.config["scaling_factor"])
    return scale * encode_all(model, scenes.images, generator(31, scenes.seed))


def _texts(shop: Workshop, captions: list[str], batch: int = 256) -> Tensor:
    tokens = load_tokenizer(shop.out)(captions)
    model = load_text_encoder(shop)
    parts = [encode_condition(model, part.to(shop.device)).half().cpu() for part in tokens.split(batch)]
    return torch.cat(parts)


def _depths(shop: Workshop, scenes: SceneSet, batch: int = 128) -> Tensor:
    """The depth estimator's prediction on the latent grid: what sampling will see, not the world's truth."""
    model = load_depth_estimator(shop)
    parts = []
    for start in range(0, len(scenes), batch):
        images = to_float(scenes.images[start : start + batch]).to(shop.device)
        depth = estimate_depth(model, images)[:, None]
        parts.append(normalized_depth(depth, images.shape[-1] // 8).cpu())
    return torch.cat(parts)


def _inpaintings(shop: Workshop, scenes: SceneSet, batch: int = 64) -> Tensor:
    """One random mask per scene (1 = paint), and the latent of the image whose hole is 0 in [-1, 1]."""
    model = load_vae(shop, "vae")
    draw = generator(32, scenes.seed)
    parts = []
    for start in range(0, len(scenes), batch):
        images = to_float(scenes.images[start : start + batch])
        masks = np.stack([random_mask(scenes.seed, start + i, images.shape[-1]) for i in range(len(images))])
        mask = torch.from_numpy(masks)[:, None].float()
        posterior = model.encode((images * (mask < 0.5)).to(shop.device)).latent_dist
        latent = posterior.mean.cpu() + posterior.std.cpu() * torch.randn(
            posterior.mean.shape, generator=draw
        )
        small = F.interpolate(mask, size=latent.shape[-2:], mode="nearest")
        parts.append(torch.cat([small, latent * model.config["scaling_factor"]], dim=1))
    return torch.cat(parts)


def _lowres(shop: Workshop, scenes: SceneSet) -> Tensor:
    """Quarter-size images in [-1, 1], without noise: that is drawn anew in every step."""
    return to_float(low_resolution(np.array(scenes.images)))
