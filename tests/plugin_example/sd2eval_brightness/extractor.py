"""Luma of each image. Imported when a sweep measures with it: torch is here."""

from __future__ import annotations

import torch

from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import Extractor, Images, ready, state_digest, values

WEIGHTS = {"rec601": (0.299, 0.587, 0.114), "rec709": (0.2126, 0.7152, 0.0722)}


class Luma(torch.nn.Module):
    """Weighted mean of R, G and B over all pixels."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, H, W, 3] in 0..1 to [N]."""
        return (images @ self.weights).mean(dim=(1, 2))


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Return the extractor that a YAML with `kind: luma` describes; `value` [N] float32."""
    if config.model not in WEIGHTS:
        raise InputError(f"extractor '{config.name}': model={config.model}; allowed: {', '.join(WEIGHTS)}")
    model = Luma(WEIGHTS[config.model])
    digest = state_digest(model)
    model, dtype = ready(model, config, device), getattr(torch, config.dtype)

    def encode(batch: Images) -> torch.Tensor:
        return model(torch.from_numpy(batch).to(device, dtype) / 255)

    return Extractor(name=config.name, digest=digest, images=values(encode, config.batch_size))
