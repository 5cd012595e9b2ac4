"""LPIPS: the distance of two images in the layers of a network (Zhang et al. 2018, version 0.1).

At each pixel of five layers the features are scaled to unit length; their squared difference, weighted by
channel, is averaged over the pixels and summed over the layers. Both images come straight from memory, in
float32 with TF32 off.

Inside a mask, each layer's average is taken over the mask alone, at that layer's own grid (the share of each
cell's area that is masked is its weight), and the image outside the mask is the original's. So what lies
outside cannot change the value (a spatial map of the generated image would let it in, for a feature sees far
around itself), a small mask is not diluted by the agreeing surroundings (as the plain LPIPS of a pasted
image is), and a mask of everything gives the unmasked value exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sd2eval.checkpoints.conditioning import to_signed
from sd2eval.extractors.base import Features, Images, Masks, exact_float32

EPSILON = 1e-10
"""Keeps features without length from being divided by zero, as in the authors' code."""


@dataclass(frozen=True)
class Perceptual:
    """A network's layers, and what each of their channels counts."""

    layers: Callable[[Tensor], list[Tensor]]
    """Images float32 [N, 3, R, R] in [-1, 1] to features [N, C, h, w] of unit length, one per layer."""
    weights: Sequence[Tensor]
    """Per layer, one weight per channel [C], or one for all [1]."""
    device: torch.device
    batch_size: int

    @torch.inference_mode()
    def distances(self, images: Images, originals: Images, masks: Masks | None = None) -> Features:
        """Return the distance of each image to the original beside it.

        Args:
            images: uint8 [N, R, R, 3].
            originals: uint8 [N, R, R, 3].
            masks: bool [N, R, R]; only what is True counts, and each has some.

        Returns:
            float32 [N], at least 0.
        """
        chunks = []
        with exact_float32():
            for start in range(0, len(images), self.batch_size):
                rows = slice(start, start + self.batch_size)
                both = np.concatenate([images[rows], originals[rows]])
                weight = None if masks is None else torch.from_numpy(masks[rows]).float().to(self.device)
                chunks.append(self._batch(to_signed(both).to(self.device), weight))
        return torch.cat(chunks).cpu().numpy()

    def _batch(self, both: Tensor, masks: Tensor | None) -> Tensor:
        """Return the distances [n] between the first and the second half of [2n, 3, R, R]."""
        count = len(both) // 2
        total = torch.zeros(count, device=both.device)
        for features, weight in zip(self.layers(both), self.weights, strict=True):
            squares = (features[:count] - features[count:]).square()
            apart = (squares * weight.view(1, -1, 1, 1)).sum(1)
            if masks is None:
                total += apart.mean((1, 2))
            else:
                area = adaptive_avg_pool2d(masks, (apart.shape[1], apart.shape[2]))
                total += (apart * area).sum((1, 2)) / area.sum((1, 2))
        return total


def directions(features: Tensor) -> Tensor:
    """Scale the features [N, C, h, w] of each pixel to unit length."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + EPSILON)
