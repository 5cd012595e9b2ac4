"""Inception-v3 with the weights of the FID (Heusel et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sd2eval.config import ExtractorConfig
from sd2eval.extractors.base import Extractor, Features, Images, in_batches, local_source, state_digest

POOL = 2048
"""Width of `features`, the last average pooling; the rest of a row are the `logits`."""


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it through torch-fidelity; features [N, 2048] and logits [N, 1008]."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = str(local_source(config)) if config.source else None
    if weights:
        # torch-fidelity would run code from a pickle; this raises where there is more than tensors in it.
        torch.load(weights, weights_only=True)
    model = FeatureExtractorInceptionV3(
        config.model, ["2048", "logits_unbiased"], feature_extractor_weights_path=weights, verbose=False
    )
    digest = state_digest(model)
    model = model.to(device).eval().requires_grad_(False)

    def extract(batch: Images) -> torch.Tensor:
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().to(device)
        return torch.cat(model(pixels), dim=1)

    run = in_batches(extract, config.batch_size)

    def images(batch: Images) -> Mapping[str, Features]:
        rows = run(batch)
        return {"features": rows[:, :POOL], "logits": rows[:, POOL:]}

    return Extractor(name=config.name, digest=digest, images=images)
