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
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from sd2eval.checkpoints.conditioning import to_signed
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.features import exact_float32, loading, local_source, state_digest
from sd2eval.transfer.digests import fault_of
from sd2eval.transfer.download import fetch

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]

ADDRESS = "https://download.pytorch.org/models/{name}.pth"
"""Where torchvision publishes the weights behind a name such as `alexnet-owt-7be5be79`."""
ALEXNET_LAYERS = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))
"""Slices of torchvision's `features` that end with the five ReLUs."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS' own normalisation of images in [-1, 1]."""
EPSILON = 1e-10
"""Keeps features without length from being divided by zero, as in the authors' code."""


@dataclass(frozen=True)
class Perceptual:
    """A network that tells how far apart two images look."""

    name: str
    digest: str
    """SHA-256 over its weights."""
    layers: Callable[[Tensor], list[Tensor]]
    """Images float32 [N, 3, R, R] in [-1, 1] to features [N, C, h, w] of unit length, one per layer."""
    weights: Sequence[Tensor]
    """Per layer, one weight per channel [C], or one for all [1]."""
    device: torch.device
    batch_size: int

    @torch.inference_mode()
    def distances(self, images: Images, originals: Images, masks: Masks | None = None) -> NDArray[np.float32]:
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


def load_perceptual(config: ExtractorConfig, device: torch.device) -> Perceptual:
    """Load a perceptual network by its `kind`.

    Raises:
        InputError: an unknown kind, or weights that are not here, are others or cannot be fetched.
    """
    if config.kind not in KINDS:
        raise InputError(f"extractor kind '{config.kind}' is unknown; allowed: {', '.join(KINDS)}")
    with loading(config):
        return KINDS[config.kind](config, device)


def _lpips_alex(config: ExtractorConfig, device: torch.device) -> Perceptual:
    import torchvision

    state = torch.load(_alexnet_file(config), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        backbone = torchvision.models.alexnet(weights=None).features
    state = {name.removeprefix("features."): state[name] for name in state if name.startswith("features.")}
    backbone.load_state_dict(state, assign=True)
    heads = torch.load(_heads_file(), map_location="cpu", weights_only=True)
    model = nn.ModuleDict({"backbone": backbone, "heads": nn.ParameterDict(_named(heads))})
    model = model.to(device).float().eval().requires_grad_(False)
    slices = [backbone[first:end] for first, end in ALEXNET_LAYERS]
    shift, scale = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))

    def layers(images: Tensor) -> list[Tensor]:
        features, found = (images - shift) / scale, []
        for part in slices:
            features = part(features)
            found.append(_directions(features))
        return found

    weights = [weight.flatten() for name, weight in model.named_parameters() if name.startswith("heads.")]
    return Perceptual(config.name, state_digest(model), layers, weights, device, config.batch_size)


def _named(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the five linear heads of a file that calls them `lin0.model.1.weight` and so on, in order."""
    return {f"lin{index}": heads[f"lin{index}.model.1.weight"] for index in range(len(ALEXNET_LAYERS))}


def _alexnet_file(config: ExtractorConfig) -> Path:
    """Return the published backbone's file; its name says how its SHA-256 begins, and that is checked."""
    name = config.pretrained
    digest = f"sha256:{name.rpartition('-')[2]}" if name else None
    if config.source:
        file = local_source(config)
        fault = fault_of(file, digest=digest)
        if fault:
            raise InputError(f"extractor '{config.name}': {file} is not {name} ({fault})")
        return file
    if name is None:
        raise InputError(f"extractor '{config.name}': neither `source` nor `pretrained` says which weights")
    # Where torchvision itself keeps it.
    target = Path(torch.hub.get_dir(), "checkpoints", f"{name}.pth")
    try:
        return fetch(ADDRESS.format(name=name), target, digest=digest)
    except InputError as error:
        raise InputError(
            f"extractor '{config.name}': {error}; protocol.perceptual.source=FILE names a local copy"
        ) from error


def _heads_file() -> Path:
    """Return the linear heads of version 0.1, which torchmetrics carries; it is not imported for them."""
    package = find_spec("torchmetrics")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"


def _mini_lpips(config: ExtractorConfig, device: torch.device) -> Perceptual:
    """Build the same formula on the mini classifier's four stages; every layer and channel counts alike."""
    from sd2eval.mini.classifier import load_classifier

    model = load_classifier(local_source(config)).to(device)
    stages = [list(model.stages)[index : index + STAGE] for index in range(0, len(model.stages), STAGE)]

    def layers(features: Tensor) -> list[Tensor]:
        found = []
        for stage in stages:
            for module in stage:
                features = module(features)
            found.append(_directions(features))
        return found

    weights = [torch.full((1,), 1.0 / len(stages), device=device)] * len(stages)
    return Perceptual(config.name, state_digest(model), layers, weights, device, config.batch_size)


STAGE = 6
"""Modules of one stage of the mini classifier: twice convolution, normalisation, SiLU."""


def _directions(features: Tensor) -> Tensor:
    """Scale the features [N, C, h, w] of each pixel to unit length."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + EPSILON)


KINDS: dict[str, Callable[[ExtractorConfig, torch.device], Perceptual]] = {
    "lpips_alex": _lpips_alex,
    "mini_lpips": _mini_lpips,
}
