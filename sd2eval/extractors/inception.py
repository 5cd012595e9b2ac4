"""Inception-v3 with the weights of the FID (Heusel et al. 2017), through torch-fidelity's network.

All programs that compute an FID run the same network on the same weights. They differ in how an image becomes
its input of 299 x 299 pixels, and that moves the FID: `preprocess` says whose way is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import (
    Extractor,
    Features,
    Images,
    in_batches,
    local_source,
    ready,
    state_digest,
)
from sd2eval.transfer.digests import fault_of
from sd2eval.weights.models import obtain
from sd2eval.weights.published import published

MODEL = "inception-v3-compat"
"""What torch-fidelity calls the network."""
PUBLISHED = "inception"
"""The entry of the table of published weights."""
POOL = 2048
"""Width of `features`, the last average pooling; the rest of a row are the `logits`."""
SIDE = 299
"""Pixels of the network's input."""
COUNTERS = "num_batches_tracked"
"""Ends the names of what training counted; no part of the network's function."""

Prepare = Callable[[Images, torch.device], Tensor]
"""uint8 [N, H, W, 3] to float32 [N, 3, 299, 299]."""


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load the network; one pass gives `features` [N, 2048] and `logits` [N, 1008].

    The logits are torch-fidelity's `logits_unbiased`, without the last layer's bias, which Inception Scores
    are computed from.

    Raises:
        InputError: unknown settings, or weights that cannot be had, are damaged or are others.
    """
    prepare = _preprocessing(config)
    network = _network(config)
    digest = state_digest(network)
    network, dtype = ready(network, config, device), getattr(torch, config.dtype)
    *layers, classifier = network.children()  # in the order of its forward pass
    pooled = torch.nn.Sequential(*layers)

    def extract(batch: Images) -> Tensor:
        features = pooled(prepare(batch, device).to(dtype)).flatten(1)
        return torch.cat([features, features.mm(classifier.weight.T)], dim=1)

    run = in_batches(extract, config.batch_size)

    def images(batch: Images) -> Mapping[str, Features]:
        rows = run(batch)
        return {"features": rows[:, :POOL], "logits": rows[:, POOL:]}

    return Extractor(name=config.name, digest=digest, images=images)


def like_torch_fidelity(batch: Images, device: torch.device) -> Tensor:
    """Resize as TensorFlow 1 did: bilinear between corners, without antialiasing; (x - 128) / 128."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    pixels = _channels_first(batch, device)
    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(pixels, (SIDE, SIDE), align_corners=False)
    return (resized - 128) / 128


def like_pytorch_fid(batch: Images, device: torch.device) -> Tensor:
    """Resize bilinearly between pixel centres, without antialiasing, in 0..1; 2x - 1."""
    pixels = _channels_first(batch, device) / 255
    return 2 * interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False) - 1


def like_clean_fid(batch: Images, device: torch.device) -> Tensor:
    """Resize each channel by Pillow's bicubic, antialiased filter in float32, clipped but not rounded."""
    resized = np.empty((len(batch), 3, SIDE, SIDE), np.float32)
    for image, target in zip(batch, resized, strict=True):
        for channel in range(3):
            plane = Image.fromarray(image[:, :, channel].astype(np.float32))
            target[channel] = np.asarray(plane.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 255)
    return (torch.from_numpy(resized).to(device) - 128) / 128


def like_torchmetrics(batch: Images, device: torch.device) -> Tensor:
    """Resize bilinearly with antialiasing in float32, neither rounded nor clipped; (x - 128) / 128."""
    pixels = _channels_first(batch, device)
    resized = interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return (resized - 128) / 128


PREPROCESS: dict[str, Prepare] = {
    "torch_fidelity": like_torch_fidelity,
    "pytorch_fid": like_pytorch_fid,
    "clean_fid": like_clean_fid,
    "torchmetrics": like_torchmetrics,
}
DEFAULT = "torch_fidelity"


def _channels_first(batch: Images, device: torch.device) -> Tensor:
    return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().to(device).float()


def _preprocessing(config: ExtractorConfig) -> Prepare:
    name = config.preprocess or DEFAULT
    if name not in PREPROCESS:
        allowed = f"{', '.join(PREPROCESS)}, or null for {DEFAULT}"
        raise InputError(f"extractor '{config.name}': preprocess '{name}' is unknown; allowed: {allowed}")
    return PREPROCESS[name]


def _network(config: ExtractorConfig) -> Any:
    """Return torch-fidelity's network with the weights that the settings name, on the CPU in float32."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    for key, given, wanted in (("model", config.model, MODEL), ("pretrained", config.pretrained, PUBLISHED)):
        if given not in (None, wanted):
            raise InputError(
                f"extractor '{config.name}': {key} '{given}' is unknown; allowed: {wanted}, or null"
            )
    file = _file(config)
    # It loads from a path or a stream, running whatever code is in there: it gets tensors alone.
    stream = BytesIO()
    torch.save(_tensors(file, config), stream)
    stream.seek(0)
    try:
        return FeatureExtractorInceptionV3(MODEL, ["2048"], feature_extractor_weights_path=stream)
    except RuntimeError as error:  # of load_state_dict: names or shapes
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"extractor '{config.name}': {file} holds no Inception-v3 with the FID's layers ({reason}...)"
        ) from error


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return () if config.source or config.pretrained is None else (config.pretrained,)


def _file(config: ExtractorConfig) -> Path:
    """Return the file of the weights; one that is called the published ones is checked to be them."""
    if not config.source:
        if config.pretrained is None:
            raise InputError(
                f"extractor '{config.name}': neither `source` nor `pretrained` says which weights"
            )
        return obtain(config.pretrained)
    file = local_source(config)
    if config.pretrained is None:
        return file
    fault = fault_of(file, digest=f"sha256:{published()[config.pretrained].sha256}")
    if fault:
        raise InputError(
            f"extractor '{config.name}': {file} is not the published weights ({fault}); "
            "`pretrained: null` takes other weights of this network"
        )
    return file


def _tensors(file: Path, config: ExtractorConfig) -> dict[str, Tensor]:
    """Return a file's tensors by name, copied, without its counters; runs none of its code."""
    try:
        weights = WeightsFile(file)
        names = [name for name in weights.shapes if not name.endswith(COUNTERS)]
        return {name: tensor.clone() for name, tensor in weights.read(names)}
    except InputError as error:
        raise InputError(f"extractor '{config.name}': cannot load its weights ({error})") from error
