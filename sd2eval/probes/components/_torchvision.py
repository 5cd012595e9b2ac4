"""What torchvision's detectors share: their weights into their layers, and pictures to their answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import ComponentConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import exact_float32, state_digest
from sd2eval.probes.components.base import local_source
from sd2eval.weights.models import obtain

COUNTERS = "num_batches_tracked"
"""Ends the names of what training counted; no part of the network's function."""
SIDE = 800
"""Pixels that torchvision brings an image's shorter side to before it looks."""
Answer = dict[str, Tensor]


def side(config: ComponentConfig) -> int:
    """Return the pixels that an image's shorter side is brought to."""
    return int(config.options.get("side", SIDE))


def published(config: ComponentConfig) -> tuple[str, ...]:
    """Return the published weights that are fetched where `source` names no local copy."""
    return () if config.source or config.pretrained is None else (config.pretrained,)


def weights(config: ComponentConfig) -> Path:
    """Return the file of a detector's weights.

    Raises:
        InputError: neither `source` nor `pretrained` is set, or the weights cannot be had.
    """
    if config.source:
        return local_source(config)
    if config.pretrained is None:
        raise InputError(f"component '{config.name}': neither `source` nor `pretrained` says which weights")
    return obtain(config.pretrained)


def fill(network: torch.nn.Module, file: Path) -> None:
    """Load a file's tensors into a network: all of them, no other, each of its own shape, and finite.

    torchvision's modules know the names that their layers had when older files were written.

    Raises:
        InputError: the file cannot be read, is cut, or holds another network.
    """
    stored, state = WeightsFile(file), {}
    for name, tensor in stored.read(name for name in stored.shapes if not name.endswith(COUNTERS)):
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{file}: NaN or infinity in its tensor {name}")
        state[name] = tensor.clone()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # names or shapes
        reason = " ".join(str(error).split(":", 1)[-1].split())[:150]
        raise InputError(f"{file}: holds the weights of another network ({reason}...)") from error


def ready(network: Any, file: Path, device: torch.device) -> tuple[Any, str]:
    """Return a network with a file's weights on its device, and the digest of what it computes with.

    Raises:
        InputError: see `fill`.
    """
    fill(network, file)
    digest = state_digest(network)
    return network.to(device).eval().requires_grad_(False), digest


def answers(network: Any, images: NDArray[np.uint8], device: torch.device, size: int) -> Iterator[Answer]:
    """Yield what a detector says of each image.

    Args:
        network: takes a list of float32 [3, H, W] in 0..1.
        images: uint8 [N, H, W, 3].
        device: where the network is.
        size: images at a time.
    """
    for start in range(0, len(images), size):
        with torch.inference_mode(), exact_float32():
            batch = torch.from_numpy(images[start : start + size]).to(device).permute(0, 3, 1, 2) / 255
            found = network(list(batch))
        yield from ({name: value.cpu() for name, value in one.items()} for one in found)
