"""The mini world's classifier, in Inception's place."""

from __future__ import annotations

import torch

from sd2eval.checkpoints.conditioning import to_signed
from sd2eval.config import ExtractorConfig
from sd2eval.extractors.base import Extractor, Images, features, local_source, ready, state_digest


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it from a folder that holds `classifier/`; features [N, 32]."""
    from sd2eval.mini.classifier import load_classifier

    model = load_classifier(local_source(config))
    digest = state_digest(model)
    model, dtype = ready(model, config, device), getattr(torch, config.dtype)

    def encode(batch: Images) -> torch.Tensor:
        return model.features(to_signed(batch).to(device, dtype))  # type: ignore[no-any-return]

    return Extractor(name=config.name, digest=digest, images=features(encode, config.batch_size))
