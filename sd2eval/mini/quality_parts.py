"""How good the family's parts are on held-out scenes: autoencoders, classifier, depth, score CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.mini.captions import english, write_captions
from sd2eval.mini.classifier import attributes, load_classifier
from sd2eval.mini.edits import edit_scene
from sd2eval.mini.render import render
from sd2eval.mini.tokenizer import load_tokenizer
from sd2eval.mini.train_clip import load_score_clip
from sd2eval.mini.train_heads import estimate_depth, load_depth_estimator
from sd2eval.mini.train_vae import load_vae, psnr, to_float
from sd2eval.mini.training import Workshop
from sd2eval.mini.world import HELD_OUT_SEED, Scene, draw_scene

#: Held-out scenes from here on are not in the packaged data set, which stays untouched for the study itself.
FIRST_SCENE = 1_000

Images = NDArray[np.uint8]


class Example(NamedTuple):
    """One caption to sample: its scene's number among the held-out ones, and the scene."""

    number: int
    scene: Scene

    @property
    def caption(self) -> str:
        """The first of the scene's five."""
        return write_captions(self.scene, HELD_OUT_SEED, self.number)[0]


def examples(count: int, kind: str | None = None, named: bool = False) -> list[Example]:
    """The first ``count`` held-out scenes (of a ``kind``; ``named``: whose first colour is mentioned)."""
    found: list[Example] = []
    index = FIRST_SCENE
    while len(found) < count:
        scene = draw_scene(HELD_OUT_SEED, index)
        if kind in (None, scene.kind) and (scene.items[0].names_colour or not named):
            found.append(Example(index, scene))
        index += 1
    return found


def judge_parts(shop: Workshop, count: int = 256) -> dict[str, float]:
    """Autoencoders, classifier, depth estimator and score CLIP on held-out scenes."""
    scenes = [example.scene for example in examples(count)]
    rendered = [render(scene) for scene in scenes]
    images, depths = np.stack([image for image, _ in rendered]), np.stack([depth for _, depth in rendered])
    large = np.stack([render(scene, 96)[0] for scene in scenes[:64]])
    with torch.no_grad():
        predicted = estimate_depth(load_depth_estimator(shop), to_float(images)).numpy()
    return {
        "vae PSNR at 64 pixels (dB)": psnr(load_vae(shop, "vae"), images),
        "vae PSNR at 96 pixels (dB)": psnr(load_vae(shop, "vae"), large),
        "vae-x4 PSNR at 64 pixels (dB)": psnr(load_vae(shop, "vae-x4"), images),
        "depth estimator, mean absolute error (0 to 1)": float(np.abs(predicted - depths).mean()),
        "classifier, attributes answered correctly": _classifier_accuracy(shop.out, scenes, images),
        "score CLIP, caption above its one-attribute edit": _ranking(shop, scenes, images),
    }


def _classifier_accuracy(weights: Path, scenes: Sequence[Scene], images: Images) -> float:
    with torch.no_grad():
        answers = load_classifier(weights)(to_float(images)).numpy() > 0
    truth = np.stack([attributes(scene) for scene in scenes]) > 0.5
    return float((answers == truth).mean())


def _ranking(shop: Workshop, scenes: Sequence[Scene], images: Images) -> float:
    """Share of pictures of edited scenes that are closer to their caption than to the unedited scene's."""
    edited = [edit_scene(scene, np.random.default_rng([3, i])) for i, scene in enumerate(scenes)]
    model, tokenizer = load_score_clip(shop), load_tokenizer(shop.out)
    originals = [_mentioning(scene, other) for scene, other in zip(scenes, edited, strict=True)]
    shown = np.stack([render(scene)[0] for scene in edited])
    with torch.no_grad():
        image = model.encode_image(to_float(shown), normalize=True)
        right = model.encode_text(tokenizer([english(s, None) for s in edited]), normalize=True)
        wrong = model.encode_text(tokenizer([english(s, None) for s in originals]), normalize=True)
    return float(((image * right).sum(1) > (image * wrong).sum(1)).float().mean())


def _mentioning(scene: Scene, other: Scene) -> Scene:
    """``scene`` whose caption mentions the same attributes as ``other``'s."""
    items = tuple(
        replace(item, names_colour=o.names_colour, names_size=o.names_size)
        for item, o in zip(scene.items, other.items, strict=True)
    )
    return replace(scene, items=items, names_place=other.names_place, names_relation=other.names_relation)
