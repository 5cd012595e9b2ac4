"""Extractors: 8-bit images (and texts) to feature arrays, straight from memory.

An extractor runs in float32 with TF32 off: its features are compared to the sixth digit, and its cost is
small beside the sampler's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file

from sd2eval.checkpoints.conditioning import to_signed
from sd2eval.checkpoints.sources import local_path
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError

Images = NDArray[np.uint8]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Extractor:
    """A network, its preprocessing, and the digest that names both."""

    name: str
    digest: str
    """SHA-256 over the weights."""
    images: Callable[[Images], Features]
    """uint8 [N, H, W, 3] to float32 [N, d]."""
    texts: Callable[[Sequence[str]], Features] | None = None
    """Texts to float32 [N, d] of unit length; None for an image-only network."""


def load_extractor(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load an extractor by its `kind`.

    Raises:
        InputError: an unknown kind, or weights that are not here and cannot be fetched.
    """
    if config.kind not in KINDS:
        raise InputError(f"extractor kind '{config.kind}' is unknown; allowed: {', '.join(KINDS)}")
    with loading(config):
        return KINDS[config.kind](config, device)


@contextmanager
def loading(config: ExtractorConfig) -> Iterator[None]:
    """Turn what goes wrong while an extractor's weights are read into one line.

    Raises:
        InputError: names the extractor, the reason, and where to put a local copy.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"extractor '{config.name}': cannot load its weights ({reason}); set its `source` to a local copy"
        ) from error


def _mini_classifier(config: ExtractorConfig, device: torch.device) -> Extractor:
    from sd2eval.mini.classifier import load_classifier

    model = load_classifier(local_source(config)).to(device)
    images = _in_batches(lambda batch: model.features(to_signed(batch).to(device)), config.batch_size)
    return Extractor(config.name, state_digest(model), images)


def _mini_clip(config: ExtractorConfig, device: torch.device) -> Extractor:
    folder = local_source(config)
    settings = json.loads((folder / "config.json").read_text())
    preprocess = settings.pop("preprocess")
    model = open_clip.model.CLIP(**settings)
    state = load_file(folder / "open_clip_model.safetensors")
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    merges = next(folder.parent.glob("tokenizer/bpe_*.txt.gz"))
    tokenizer = SimpleTokenizer(str(merges), context_length=settings["text_cfg"]["context_length"])
    mean, std = (torch.tensor(preprocess[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    def prepare(batch: Images) -> torch.Tensor:
        return ((to_signed(batch) + 1.0) / 2.0 - mean) / std

    return _clip(config, model, prepare, tokenizer, device)


def _open_clip(config: ExtractorConfig, device: torch.device) -> Extractor:
    if config.model is None:
        raise InputError(f"extractor '{config.name}': `model` names no OpenCLIP architecture")
    model, _, transform = open_clip.create_model_and_transforms(
        config.model, pretrained=str(local_source(config)) if config.source else config.pretrained
    )

    def prepare(batch: Images) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(image)) for image in batch])

    return _clip(config, model, prepare, open_clip.get_tokenizer(config.model), device)


def _clip(
    config: ExtractorConfig,
    model: Any,
    prepare: Callable[[Images], torch.Tensor],
    tokenizer: Any,
    device: torch.device,
) -> Extractor:
    model = model.to(device).float().eval().requires_grad_(False)

    def encode_images(batch: Images) -> torch.Tensor:
        return model.encode_image(prepare(batch).to(device), normalize=True)  # type: ignore[no-any-return]

    def encode_texts(batch: Sequence[str]) -> torch.Tensor:
        return model.encode_text(tokenizer(list(batch)).to(device), normalize=True)  # type: ignore[no-any-return]

    return Extractor(
        config.name,
        state_digest(model),
        _in_batches(encode_images, config.batch_size),
        _in_batches(encode_texts, config.batch_size),
    )


def _inception(config: ExtractorConfig, device: torch.device) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = str(local_source(config)) if config.source else None
    if weights:
        # torch-fidelity would run code from a pickle; this raises where there is more than tensors in it.
        torch.load(weights, weights_only=True)
    model = FeatureExtractorInceptionV3(
        config.model, ["2048"], feature_extractor_weights_path=weights, verbose=False
    )
    model = model.to(device).eval().requires_grad_(False)

    def extract(batch: Images) -> torch.Tensor:
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().to(device)
        return model(pixels)[0]  # type: ignore[no-any-return]

    return Extractor(config.name, state_digest(model), _in_batches(extract, config.batch_size))


KINDS: dict[str, Callable[[ExtractorConfig, torch.device], Extractor]] = {
    "mini_classifier": _mini_classifier,
    "mini_clip": _mini_clip,
    "inception": _inception,
    "open_clip": _open_clip,
}


def local_source(config: ExtractorConfig) -> Path:
    """Return the folder or file that an extractor's `source` names.

    Raises:
        InputError: it is not on this machine.
    """
    path = local_path(config.source or "")
    if not config.source or path is None:
        raise InputError(f"extractor '{config.name}': source '{config.source}' is not on this machine")
    return path


def state_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 over names, shapes and values of a network's parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        total.update(f"{name}{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _in_batches(encode: Callable[[Any], torch.Tensor], size: int) -> Callable[[Any], Features]:
    @torch.inference_mode()
    def run(items: Any) -> Features:
        with exact_float32():
            chunks = [encode(items[start : start + size]) for start in range(0, len(items), size)]
            return torch.cat(chunks).float().cpu().numpy()

    return run


@contextmanager
def exact_float32() -> Iterator[None]:
    """Switch TF32 off, whatever the caller set for sampling."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
