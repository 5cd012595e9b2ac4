"""The formula of LPIPS on the mini classifier's four stages; every layer and channel counts alike."""

from __future__ import annotations

import torch
from torch import Tensor

from sd2eval.config import ExtractorConfig
from sd2eval.extractors.base import Extractor, local_source, ready, state_digest
from sd2eval.extractors.lpips import Perceptual, directions

STAGE = 6
"""Modules of one stage of the mini classifier: twice convolution, normalisation, SiLU."""


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it from a folder that holds `classifier/`."""
    from sd2eval.mini.classifier import load_classifier

    model = load_classifier(local_source(config))
    digest = state_digest(model)
    model = ready(model, config, device)
    stages = [list(model.stages)[index : index + STAGE] for index in range(0, len(model.stages), STAGE)]

    def layers(features: Tensor) -> list[Tensor]:
        found = []
        for stage in stages:
            for module in stage:
                features = module(features)
            found.append(directions(features))
        return found

    weights = [torch.full((1,), 1.0 / len(stages), device=device)] * len(stages)
    network = Perceptual(layers, weights, device, config.batch_size)
    return Extractor(name=config.name, digest=digest, distances=network.distances)
