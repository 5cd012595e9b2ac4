"""How good the mini family is, on held-out scenes: ``python -m sd2eval.mini.quality``.

Samples with the library's own checkpoints and sampler, so that what is judged is what a sweep runs. Seeds and
scenes are fixed; the numbers are reproduced by the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval import images as pixels
from sd2eval import noise
from sd2eval.checkpoints import Checkpoint, Conditioning, load
from sd2eval.config import CheckpointConfig
from sd2eval.metrics.frechet import frechet_distance, frechet_reference, gaussian
from sd2eval.mini import WEIGHTS
from sd2eval.mini.classifier import load_classifier
from sd2eval.mini.detector import shows_object
from sd2eval.mini.quality_parts import Example, Images, examples, judge_parts
from sd2eval.mini.render import render
from sd2eval.mini.tokenizer import load_tokenizer
from sd2eval.mini.train_clip import load_score_clip
from sd2eval.mini.train_unet import PLANS
from sd2eval.mini.train_vae import to_float
from sd2eval.mini.training import Workshop
from sd2eval.mini.world import HELD_OUT_SEED, draw_scene
from sd2eval.sampler import Inputs, sample
from sd2eval.sheet import contact_sheet

SCALES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
STEPS = 50
SEED = 0
_CONDITIONING = {None: "text", "depth": "depth", "inpainting": "inpainting", "lowres": "upscaling"}


def definition(name: str, weights: Path) -> CheckpointConfig:
    """The checkpoint ``name`` of the family in ``weights``, as ``conf/checkpoint`` declares it."""
    plan = PLANS[name]
    shared = {
        "vae": weights / plan.vae,
        "text_encoder": weights / "text_encoder",
        "tokenizer": weights / "tokenizer",
    }
    return CheckpointConfig(
        name=name,
        conditioning=_CONDITIONING[plan.extra],
        prediction_type=plan.prediction,
        resolution=plan.size,
        beta_start=plan.betas[0],
        beta_end=plan.betas[1],
        text="open_clip",
        noise_level=20 if plan.extra == "lowres" else None,
        architecture=None,
        lora_scale=1.0,
        file=None,
        lora=None,
        source=str(weights / name),
        revision=None,
        components={
            key: str(path)
            for key, path in (shared | {"depth_estimator": weights / "depth_estimator"}).items()
        },
    )


def generate(
    checkpoint: Checkpoint, examples: Sequence[Example], scales: Sequence[float], steps: int = STEPS
) -> Images:
    """Images at 64 pixels, uint8 [N, S, 64, 64, 3]; image conditioning is the scenes' own pictures."""
    ids = [example.number for example in examples]
    conditioning = Conditioning()
    if checkpoint.adapter is not None:
        size = checkpoint.definition.resolution
        conditioning = checkpoint.adapter(_rendered(examples, size), ids, SEED)
    inputs = Inputs(
        noise=noise.normal(SEED, ids, "latent", checkpoint.latent_shape),
        cond=checkpoint.text_encoder([example.caption for example in examples])[0],
        uncond=checkpoint.uncond(),
        conditioning=conditioning,
    )
    latents = sample(checkpoint.unet, checkpoint.scheduler, inputs, scales, steps=steps, batch_size=32)
    decoded = torch.cat([checkpoint.decode(part) for part in torch.split(latents.flatten(0, 1), 16)])
    drawn = [pixels.square(image, 64) for image in pixels.to_uint8(decoded.numpy())]
    return np.stack(drawn).reshape(len(examples), len(scales), 64, 64, 3)


def _rendered(examples: Sequence[Example], size: int = 64) -> Images:
    return np.stack([render(example.scene, size)[0] for example in examples])


class Curve(NamedTuple):
    """One checkpoint over the guidance scales, arrays [S]; ``gain`` is paired, against the first scale."""

    score: NDArray[np.float64]
    score_error: NDArray[np.float64]
    gain: NDArray[np.float64]
    gain_error: NDArray[np.float64]
    distance: NDArray[np.float64]


def judge_curve(shop: Workshop, examples: Sequence[Example], images: Images) -> Curve:
    """CLIP score (raw cosine) and Fréchet distance to 2,000 held-out pictures; images [N, S, 64, 64, 3]."""
    n, scales = images.shape[:2]
    flat = to_float(images.reshape(-1, 64, 64, 3))
    clip, classifier, tokenizer = load_score_clip(shop), load_classifier(shop.out), load_tokenizer(shop.out)
    real = np.stack([render(draw_scene(HELD_OUT_SEED, 10_000 + i))[0] for i in range(2_000)])
    with torch.no_grad():
        text = clip.encode_text(tokenizer([e.caption for e in examples]), normalize=True)
        image = clip.encode_image(flat, normalize=True).reshape(n, scales, -1)
        features = classifier.features(flat).numpy().reshape(n, scales, -1)
        reference = frechet_reference(gaussian(classifier.features(to_float(real)).numpy()))
    cosine = (image * text[:, None]).sum(-1).double().numpy()
    gain = cosine - cosine[:, :1]
    return Curve(
        score=cosine.mean(0),
        score_error=cosine.std(0, ddof=1) / n**0.5,
        gain=gain.mean(0),
        gain_error=gain.std(0, ddof=1) / n**0.5,
        distance=np.array([frechet_distance(features[:, s], reference).value for s in range(scales)]),
    )


def named_share(checkpoint: Checkpoint, count: int) -> float:
    """Share of one-object captions whose named shape and colour the detector finds, at guidance 3."""
    wanted = examples(count, kind="single", named=True)
    drawn = generate(checkpoint, wanted, [3.0])[:, 0]
    return float(np.mean([shows_object(image, e.scene) for image, e in zip(drawn, wanted, strict=True)]))


def judge_checkpoint(
    shop: Workshop, name: str, count: int, scales: Sequence[float], sheet: Path | None
) -> None:
    """Prints one checkpoint's table; ``sheet`` receives pictures, a row per caption, a column per scale."""
    checkpoint = load(definition(name, shop.out), shop.device, torch.float32)
    print(f"\n{name}: named shape and colour at guidance 3: {named_share(checkpoint, count):.1%}", flush=True)
    wanted = examples(count)
    images = generate(checkpoint, wanted, scales)
    curve = judge_curve(shop, wanted, images)
    print("scale  clip_mini (se)      gain over first (paired se)   fd_mini")
    for i, scale in enumerate(scales):
        score = f"{curve.score[i]:.4f} ({curve.score_error[i]:.4f})"
        gain = f"{curve.gain[i]:+.4f} ({curve.gain_error[i]:.4f})"
        print(f"{scale:5.2f}  {score}     {gain}              {curve.distance[i]:.4f}")
    if sheet is not None:
        texts = [example.caption for example in wanted[:12]]
        pixels.write_png(sheet / f"{name}.png", contact_sheet(images[:12], texts, scales, name))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m sd2eval.mini.quality", description=__doc__)
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of the family (default: the packaged one)"
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(PLANS), default=list(PLANS), help="these checkpoints"
    )
    parser.add_argument("--captions", type=int, default=64, help="captions per checkpoint")
    parser.add_argument(
        "--scales", nargs="+", type=float, default=SCALES, help="guidance scales; gains are over the first"
    )
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shop = Workshop(out=options.weights, device=torch.device("cpu"))
    for what, value in judge_parts(shop).items():
        print(f"{value:8.4f}  {what}", flush=True)
    real = judge_curve(shop, own := examples(options.captions), _rendered(own)[:, None])
    print(f"{real.score[0]:8.4f}  clip_mini of the {options.captions} captions' own pictures")
    print(f"{real.distance[0]:8.4f}  fd_mini of the {options.captions} captions' own pictures", flush=True)
    for name in options.only:
        judge_checkpoint(shop, name, options.captions, options.scales, options.sheets)


if __name__ == "__main__":
    main()
