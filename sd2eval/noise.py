"""Noise as a pure function of (run seed, caption id, stream): one generator per image.

Batch size, order, worker count and crash history cannot reach it. Generators live on the CPU so that every
device starts from the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def generator(seed: int, caption_id: int, stream: str) -> torch.Generator:
    """Return a CPU generator for one image and one use.

    Args:
        seed: the run's seed.
        caption_id: key of the prompt.
        stream: what the numbers are for (`latent`, `posterior`, `low_res`, `eta`), so that two uses differ.
    """
    key = hashlib.sha256(f"{seed}/{caption_id}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)  # manual_seed takes 63 bits


def normal(seed: int, caption_ids: Sequence[int], stream: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw standard normal noise, one generator per caption.

    Returns:
        float32 CPU tensor [len(caption_ids), *shape].
    """
    draws = [torch.randn(shape, generator=generator(seed, caption, stream)) for caption in caption_ids]
    return torch.stack(draws)
