"""LPIPS v0.1 with AlexNet: torchvision's published backbone, the linear heads that torchmetrics carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors._published import obtained
from sd2eval.extractors.base import Extractor, local_source, state_digest
from sd2eval.extractors.lpips import Perceptual, directions
from sd2eval.transfer.digests import fault_of
from sd2eval.weights.published import published

ALEXNET_LAYERS = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))
"""Slices of torchvision's `features` that end with the five ReLUs."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS' own normalisation of images in [-1, 1]."""


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load the backbone from its published file and the heads of version 0.1."""
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
            found.append(directions(features))
        return found

    weights = [weight.flatten() for name, weight in model.named_parameters() if name.startswith("heads.")]
    network = Perceptual(layers, weights, device, config.batch_size)
    return Extractor(name=config.name, digest=state_digest(model), distances=network.distances)


def _named(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the five linear heads of a file that calls them `lin0.model.1.weight` and so on, in order."""
    return {f"lin{index}": heads[f"lin{index}.model.1.weight"] for index in range(len(ALEXNET_LAYERS))}


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    return () if config.source or config.pretrained is None else (config.pretrained,)


def _alexnet_file(config: ExtractorConfig) -> Path:
    """Return the backbone's file; one that is called the published one is checked to be it."""
    if not config.source:
        return obtained(config, config.pretrained)
    file = local_source(config)
    if config.pretrained is not None:
        fault = fault_of(file, digest=f"sha256:{published()[config.pretrained].sha256}")
        if fault:
            raise InputError(f"extractor '{config.name}': {file} is not {config.pretrained} ({fault})")
    return file


def _heads_file() -> Path:
    """Return the linear heads of version 0.1, which torchmetrics carries; it is not imported for them."""
    package = find_spec("torchmetrics")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"
