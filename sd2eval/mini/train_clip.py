"""The two tiny CLIPs: one gives the text encoder of every UNet, the other, different, the CLIP score.

Batches hold groups of scenes that differ in one attribute (:mod:`.edits`), so that number, size and relation
have to be told apart and not only which colours and shapes occur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from sd2eval.mini.captions import english, translate
from sd2eval.mini.edits import edit_scene
from sd2eval.mini.files import load_float, log_entry, save_half, write_json
from sd2eval.mini.render import render
from sd2eval.mini.tokenizer import CONTEXT_LENGTH, load_tokenizer
from sd2eval.mini.train_vae import to_float
from sd2eval.mini.training import Recipe, Workshop, fit
from sd2eval.mini.world import SPANISH_SHARE, TRAIN_SEED, draw_scene

GROUP = 4

RECIPES = {
    "text_encoder": Recipe(name="text_encoder", steps=1_000, batch=128, rate=1.5e-3, seed=21, ema=0.995),
    "score_clip": Recipe(name="score_clip", steps=1_200, batch=128, rate=1.5e-3, seed=22, ema=0.995),
}
TEXT = {"context_length": CONTEXT_LENGTH, "width": 128, "heads": 4, "layers": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": TEXT,
    },
    "score_clip": {
        "embed_dim": 96,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 16, "head_width": 32},
        "text_cfg": TEXT | {"width": 96, "heads": 3, "layers": 3},
    },
}


def build(name: str, vocab_size: int) -> CLIP:
    """A fresh CLIP of ``open_clip.model``; images in [-1, 1] (mean and std 0.5)."""
    config = CONFIGS[name]
    text = config["text_cfg"] | {"vocab_size": vocab_size}
    return CLIP(embed_dim=config["embed_dim"], vision_cfg=dict(config["vision_cfg"]), text_cfg=text)


def train_clip(shop: Workshop, name: str) -> None:
    """Trains one of the two; of ``text_encoder`` only the text tower is kept."""
    recipe = RECIPES[name]
    tokenizer = load_tokenizer(shop.out)
    torch.manual_seed(recipe.seed)
    model = build(name, len(tokenizer.encoder)).to(shop.device)
    entry = fit(shop, recipe, model, _loss(recipe, model, tokenizer, shop.device))
    entry["parameters"] = sum(p.numel() for p in model.parameters())
    config = CONFIGS[name]
    text = config["text_cfg"] | {"vocab_size": len(tokenizer.encoder)}
    state = dict(model.state_dict())
    if name == "text_encoder":
        state = {key: value for key, value in state.items() if not key.startswith(("visual.", "logit_"))}
        description = text
    else:
        preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": 64}
        description = config | {"text_cfg": text, "preprocess": preprocess}
    log_entry(shop.out, name, entry)
    save_half(_floats(state), shop.out / name / "open_clip_model.safetensors")
    write_json(description, shop.out / name / "config.json")


def _floats(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without BatchNorm's step counters, which inference never reads and float16 cannot count."""
    return {key: value for key, value in state.items() if value.dtype.is_floating_point}


def _loss(
    recipe: Recipe, model: CLIP, tokenizer: SimpleTokenizer, device: torch.device
) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        images, captions = hard_batch(recipe.batch, recipe.seed, step)
        image = model.encode_image(to_float(images).to(device), normalize=True)
        text = encode_text(model, tokenizer(captions).to(device))
        logits = model.logit_scale.exp().clamp(max=100.0) * image @ text.T
        target = torch.arange(len(captions), device=device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    return loss


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """``model.encode_text(tokens, normalize=True)`` without computing the padding common to the whole batch.

    Attention is causal, so positions after the longest caption cannot influence the pooled ones.
    """
    used = int(tokens.argmax(dim=1).max()) + 1
    x = model.token_embedding(tokens[:, :used]) + model.positional_embedding[:used]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:used, :used]))
    pooled = x[torch.arange(len(x)), tokens.argmax(dim=1)] @ model.text_projection
    return F.normalize(pooled, dim=-1)


def hard_batch(size: int, seed: int, step: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Images, uint8 [size, 64, 64, 3], and their captions: groups of a scene and its one-attribute edits."""
    rng = np.random.default_rng([TRAIN_SEED, seed, step])
    images, captions = np.empty((size, 64, 64, 3), np.uint8), []
    for row in range(size):
        if row % GROUP == 0:
            base = draw_scene(TRAIN_SEED, int(rng.integers(2**31)))
        scene = base if row % GROUP == 0 else edit_scene(base, rng)
        scene = replace(scene, layout=tuple(rng.random(4)))
        images[row] = render(scene)[0]
        captions.append(translate(scene, "es") if rng.random() < SPANISH_SHARE else english(scene, rng))
    return images, captions


def load_score_clip(shop: Workshop) -> CLIP:
    """The finished score CLIP as stored, in float32."""
    return _load(build("score_clip", len(load_tokenizer(shop.out).encoder)), shop, "score_clip")


def _load(model: CLIP, shop: Workshop, name: str) -> CLIP:
    model.load_state_dict(load_float(shop.out / name / "open_clip_model.safetensors"), strict=False)
    return model.eval().requires_grad_(False).to(shop.device)


def load_text_encoder(shop: Workshop) -> CLIP:
    """The text tower as stored, inside a CLIP whose image tower is untrained and unused."""
    return _load(build("text_encoder", len(load_tokenizer(shop.out).encoder)), shop, "text_encoder")


@torch.no_grad()
def encode_condition(model: CLIP, tokens: Tensor) -> Tensor:
    """What the UNets see of a caption: float32 [N, 32, 128].

    All positions after all but the last block, then the final norm, no projection. Source:
    ``FrozenOpenCLIPEmbedder(layer="penultimate")`` of the original Stable Diffusion 2.
    """
    x = model.token_embedding(tokens) + model.positional_embedding
    for block in model.transformer.resblocks[:-1]:
        x = block(x, attn_mask=model.attn_mask)
    result: Tensor = model.ln_final(x)
    return result
