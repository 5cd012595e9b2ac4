"""What every extractor is and shares: 8-bit images (and texts) to arrays, straight from memory.

An extractor runs in float32 with TF32 off unless its `dtype` says otherwise: its features are compared to the
sixth digit, and its cost is small beside the sampler's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from sd2eval.checkpoints.sources import local_path
from sd2eval.config import ExtractorConfig
from sd2eval.device_faults import of_the_machine
from sd2eval.errors import InputError

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Features = NDArray[np.float32]

FEATURES = "features"
"""The output that a metric takes unless it names another one."""


FAULTS = (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError, SafetensorError)
"""What reading weights raises that are not there, cut or something else; URLError is an OSError."""


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A network with its preprocessing; which of the four functions it has says what it can be used for."""

    name: str
    digest: str
    """SHA-256 over its weights."""
    images: Callable[[Images], Mapping[str, Features]] | None = None
    """uint8 [N, H, W, 3] to float32 arrays by output: `features` [N, d]; also `logits` [N, classes], or
    `value` [N] of a head that gives one number per image."""
    texts: Callable[[Sequence[str]], Features] | None = None
    """Texts to float32 [N, d], to be compared with `features`."""
    pairs: Callable[[Images, Sequence[str]], Mapping[str, Features]] | None = None
    """uint8 [N, H, W, 3] and N captions to `value` [N], of networks that look at both at once."""
    distances: Callable[[Images, Images, Masks | None], Features] | None = None
    """Generated and original images, uint8 [N, R, R, 3], and masks bool [N, R, R] (what counts) or None, to
    perceptual distances [N]."""


@contextmanager
def loading(config: ExtractorConfig) -> Iterator[None]:
    """Turn what goes wrong while an extractor's weights are read into one line.

    Raises:
        InputError: names the extractor, the reason, and where to put a local copy.
    """
    try:
        yield
    except FAULTS as error:
        reason = " ".join(str(error).split())[:300]
        advice = "" if of_the_machine(error) else "; set its `source` to a local copy"
        raise InputError(f"extractor '{config.name}': cannot load its weights ({reason}){advice}") from error


def local_source(config: ExtractorConfig) -> Path:
    """Return the folder or file that an extractor's `source` names.

    Raises:
        InputError: it is not on this machine.
    """
    path = local_path(config.source or "")
    if not config.source or path is None:
        raise InputError(f"extractor '{config.name}': source '{config.source}' is not on this machine")
    return path


def ready(model: torch.nn.Module, config: ExtractorConfig, device: torch.device) -> Any:
    """Return a network on its device in its dtype, for inference only."""
    return model.to(device, getattr(torch, config.dtype)).eval().requires_grad_(False)


def state_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 over names, shapes and values of a network's parameters and buffers.

    Raises:
        ValueError: NaN or infinity in a parameter, also in one that no feature depends on.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"NaN or infinity in {name}")
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        total.update(f"{name}{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def in_batches(encode: Callable[..., torch.Tensor], size: int) -> Callable[..., Features]:
    """Return `encode` over slices of `size` of its arguments, joined to one float32 array.

    Args:
        encode: takes as many arguments as the result will, each cut alike.
        size: of a batch.
    """

    @torch.inference_mode()
    def run(*items: Any) -> Features:
        with exact_float32():
            starts = range(0, len(items[0]), size)
            chunks = [
                encode(*(item[start : start + size] for item in items)).float().cpu() for start in starts
            ]
            return torch.cat(chunks).numpy()

    return run


def features(encode: Callable[[Any], torch.Tensor], size: int) -> Callable[[Any], dict[str, Features]]:
    """Return an `Extractor.images` that has `features` only."""
    run = in_batches(encode, size)
    return lambda images: {FEATURES: run(images)}


def values(encode: Callable[..., torch.Tensor], size: int) -> Callable[..., dict[str, Features]]:
    """Return an `Extractor.images` or `Extractor.pairs` that has `value` only."""
    run = in_batches(encode, size)
    return lambda *items: {"value": run(*items)}


@contextmanager
def exact_float32() -> Iterator[None]:
    """Switch TF32 off, whatever the caller set for sampling."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
