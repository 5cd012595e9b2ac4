"""Two small networks that look at pictures: the classifier and the depth estimator in MiDaS' place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DPTConfig, DPTForDepthEstimation

from sd2eval.mini.classifier import FEATURES, MiniClassifier, attributes
from sd2eval.mini.files import load_float, log_entry, save_half, write_json
from sd2eval.mini.scenes import RENDERED, SceneSet, load_scenes
from sd2eval.mini.train_vae import to_float
from sd2eval.mini.training import Recipe, Workshop, fit, generator
from sd2eval.mini.world import draw_scene

RECIPES = {
    "classifier": Recipe(name="classifier", steps=2_000, batch=64, rate=2e-3, seed=51, ema=0.995),
    "depth_estimator": Recipe(name="depth_estimator", steps=1_200, batch=32, rate=1e-3, seed=52, ema=0.995),
}
SCALED_ON = 2_048
"""Scenes over which the classifier's features get a mean square of 1."""
_WIDTHS = (16, 32, 64, 64)


def train_classifier(shop: Workshop) -> None:
    """Writes ``<out>/classifier/``."""
    recipe = RECIPES["classifier"]
    torch.manual_seed(recipe.seed)
    model = MiniClassifier(_WIDTHS, FEATURES).to(shop.device)
    scenes = load_scenes(shop.work, shop.steps(RENDERED[64]), 64)
    truth = torch.from_numpy(np.stack([attributes(draw_scene(scenes.seed, i)) for i in range(len(scenes))]))

    def loss(step: int) -> Tensor:
        draw = generator(recipe.seed, 0, step)
        rows = torch.randint(len(scenes), (recipe.batch,), generator=draw)
        images = soften(to_float(scenes.images[rows.numpy()]), draw).to(shop.device)
        return F.binary_cross_entropy_with_logits(model(images), truth[rows].to(shop.device))

    entry = fit(shop, recipe, model, loss)
    scale_features(model, to_float(scenes.images[:SCALED_ON]).to(shop.device))
    _scale_features(model, to_float(scenes.images[:2048]).to(shop.device))
    folder = shop.out / "classifier"
    log_entry(shop.out, "classifier", entry | {"parameters": sum(p.numel() for p in model.parameters())})
    save_half(dict(model.state_dict()), folder / "model.safetensors")
    write_json({"widths": _WIDTHS, "features": FEATURES}, folder / "config.json")


@torch.no_grad()
def scale_features(model: MiniClassifier, images: Tensor) -> None:
    """Rescale the last layers so that features have a mean square of 1 over `images`; logits stay the same.

    KID's cubic kernel (x.y/d + 1)^3 is made for features of Inception's size; on larger ones its variance
    drowns it. A ReLU commutes with positive factors, so nothing else changes.
    """
    scale = model.features(images).square().mean().sqrt()
    model.last.weight /= scale
    if model.last.bias is not None:
        model.last.bias /= scale
    model.head.weight *= scale


@torch.no_grad()
def _scale_features(model: MiniClassifier, images: Tensor) -> None:
    """Gives the features a root mean square of 1; the head undoes it, so that the answers stay.

    Training leaves their unit arbitrary, and a Fréchet distance is in its square.
    """
    features = torch.cat([model.features(part) for part in torch.split(images, 256)])
    scale = features.pow(2).mean().sqrt()
    model.last.weight.div_(scale)
    model.last.bias.div_(scale)  # type: ignore[union-attr]
    model.head.weight.mul_(scale)


def soften(images: Tensor, draw: torch.Generator) -> Tensor:
    """Mild blur and noise, each on half of the pictures: generated images are soft."""
    n = len(images)
    kernel = torch.tensor([0.25, 0.5, 0.25])
    weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), weight, groups=3)
    share = torch.rand(n, 1, 1, 1, generator=draw) * (torch.rand(n, 1, 1, 1, generator=draw) < 0.5)
    level = 0.06 * torch.rand(n, 1, 1, 1, generator=draw) * (torch.rand(n, 1, 1, 1, generator=draw) < 0.5)
    return images.lerp(blurred, share) + level * torch.randn(images.shape, generator=draw)


def build_depth_estimator() -> DPTForDepthEstimation:
    """A DPT on a plain ViT; the reassembling factors make its output as large as its 64-pixel input."""
    config = DPTConfig(
        image_size=64,
        patch_size=8,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 24, 32, 32],
        reassemble_factors=[2, 1, 0.5, 0.25],
        fusion_hidden_size=16,
        readout_type="ignore",
        use_auxiliary_head=False,
    )
    return DPTForDepthEstimation(config)


def estimate_depth(model: DPTForDepthEstimation, images: Tensor) -> Tensor:
    """Images [N, 3, 64, 64] in [-1, 1] -> inverse depth [N, 64, 64], larger is nearer."""
    depth: Tensor = model(pixel_values=images).predicted_depth
    return depth


def train_depth_estimator(shop: Workshop) -> None:
    """Writes ``<out>/depth_estimator/`` in transformers' layout."""
    recipe = RECIPES["depth_estimator"]
    torch.manual_seed(recipe.seed)
    model = build_depth_estimator().to(shop.device)
    torch.nn.init.constant_(
        model.head.head[-2].bias, 0.3
    )  # DPT ends in a ReLU that is born dead without this
    scenes = load_scenes(shop.work, shop.steps(RENDERED[64]), 64)
    entry = fit(shop, recipe, model, _depth_loss(recipe, model, scenes, shop.device))
    folder = shop.out / "depth_estimator"
    log_entry(shop.out, "depth_estimator", entry | {"parameters": sum(p.numel() for p in model.parameters())})
    save_half(dict(model.state_dict()), folder / "model.safetensors")
    model.config.save_pretrained(folder)


def _depth_loss(
    recipe: Recipe, model: DPTForDepthEstimation, scenes: SceneSet, device: torch.device
) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        draw = generator(recipe.seed, 0, step)
        rows = torch.randint(len(scenes), (recipe.batch,), generator=draw).numpy()
        images = soften(to_float(scenes.images[rows]), draw).to(device)
        truth = torch.from_numpy(scenes.depths[rows]).float() / 255
        return F.l1_loss(estimate_depth(model, images), truth.to(device))

    return loss


def load_depth_estimator(shop: Workshop) -> DPTForDepthEstimation:
    """The finished estimator as stored, in float32, without gradients."""
    folder = shop.out / "depth_estimator"
    model = DPTForDepthEstimation(DPTConfig.from_pretrained(folder))
    model.load_state_dict(load_float(folder / "model.safetensors"))
    model.eval().requires_grad_(False)
    return model.to(shop.device)
