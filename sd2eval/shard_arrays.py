"""What a shard's metrics are computed from: features, and how an image compares with the caption's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sd2eval import paired
from sd2eval.checkpoints import Checkpoint
from sd2eval.config import SweepConfig
from sd2eval.memory import pieces
from sd2eval.networks import Networks, extract, own_metrics
from sd2eval.records import Prompt
from sd2eval.shard import Given, Pixels


def shard_arrays(
    checkpoint: Checkpoint,
    given: Given,
    prompts: Sequence[Prompt],
    pixels: Pixels,
    networks: Networks,
    config: SweepConfig,
    size: int,
) -> dict[str, NDArray[np.float32]]:
    """Return what a shard keeps of its images, [captions, scales, ...] by the name that `Metric.array` gives.

    Args:
        checkpoint: what drew the images.
        given: what it was shown.
        prompts: the shard's.
        pixels: the images.
        networks: of the run.
        config: of the run.
        size: images that a network is given at a time, at most.

    Raises:
        InputError: a network does not give what a metric asks of it.
    """
    shape = pixels.images.shape[:2]
    metrics = own_metrics(config.protocol, checkpoint.definition)
    captions = [prompt.text for prompt in prompts for _ in range(shape[1])]
    images = pixels.images.reshape(-1, *pixels.images.shape[2:])
    rows = [extract(networks, metrics, images[piece], captions[piece]) for piece in pieces(len(images), size)]
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    arrays = {name: values.reshape(*shape, *values.shape[1:]) for name, values in arrays.items()}
    if given.squares is not None:
        ids = [prompt.caption_id for prompt in prompts]
        shown = paired.shown(checkpoint, given, ids, config.seed, config.protocol)
        compared = [metric for metric in metrics if metric.kind == "paired"]
        arrays |= paired.measure(checkpoint, shown, pixels, compared, networks.perceptual, size)
    return arrays
