"""Retrains the whole mini family from nothing: ``python -m sd2eval.mini.train``.

Finished components are skipped and unfinished ones resumed, so the same command can be run again after any
stop. Two processes may share the work, e.g. one with ``--only vae 512-base 768-v``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from sd2eval.mini import WEIGHTS
from sd2eval.mini.tokenizer import FILE, write_tokenizer
from sd2eval.mini.train_clip import train_clip
from sd2eval.mini.train_heads import train_classifier, train_depth_estimator
from sd2eval.mini.train_unet import train_unet
from sd2eval.mini.train_vae import train_vae
from sd2eval.mini.training import Workshop

#: Component -> (file that exists once it is finished, how to train it), in an order in which each finds what
#: it needs.
COMPONENTS: dict[str, tuple[Path, Callable[[Workshop], object]]] = {
    "tokenizer": (FILE, lambda shop: write_tokenizer(shop.out)),
    "text_encoder": (Path("text_encoder/config.json"), partial(train_clip, name="text_encoder")),
    "vae": (Path("vae/config.json"), partial(train_vae, name="vae")),
    "vae-x4": (Path("vae-x4/config.json"), partial(train_vae, name="vae-x4")),
    "score_clip": (Path("score_clip/config.json"), partial(train_clip, name="score_clip")),
    "classifier": (Path("classifier/config.json"), train_classifier),
    "depth_estimator": (Path("depth_estimator/config.json"), train_depth_estimator),
    "512-base": (Path("512-base/unet/config.json"), partial(train_unet, name="512-base")),
    "768-v": (Path("768-v/unet/config.json"), partial(train_unet, name="768-v")),
    "512-depth": (Path("512-depth/unet/config.json"), partial(train_unet, name="512-depth")),
    "512-inpainting": (Path("512-inpainting/unet/config.json"), partial(train_unet, name="512-inpainting")),
    "x4-upscaling": (Path("x4-upscaling/unet/config.json"), partial(train_unet, name="x4-upscaling")),
}

#: ``--quick`` divides all steps and scenes by this: enough to show that every part runs, not to learn
#: anything.
QUICK = 2_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    device = "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device
    shop = Workshop(
        out=options.out,
        device=torch.device("cpu" if device == "auto" else device),
        shrink=QUICK if options.quick else 1,
    )
    for name in options.only or COMPONENTS:
        finished, train = COMPONENTS[name]
        if (shop.out / finished).exists():
            print(f"{name}: finished, skipped", flush=True)
            continue
        print(f"{name}: training on {shop.device}", flush=True)
        train(shop)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sd2eval.mini.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder of the weights (default: the packaged ones)"
    )
    parser.add_argument("--only", nargs="+", choices=list(COMPONENTS), help="train these components only")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process")
    parser.add_argument("--quick", action="store_true", help="a few steps of each: a test, not a training")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
