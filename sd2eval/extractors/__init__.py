"""Extractors by kind: one module each with `load(config, device)`, found by its name (`sd2eval.plugins`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sd2eval import plugins
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError

if TYPE_CHECKING:
    import torch

    from sd2eval.extractors.base import Extractor


def load_extractor(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load an extractor by its `kind`.

    Raises:
        InputError: an unknown kind, or weights that are not here, are others or cannot be fetched.
    """
    from sd2eval.extractors.base import loading

    kinds = plugins.extractor_kinds()
    if config.kind not in kinds:
        raise InputError(f"extractor kind '{config.kind}' is unknown; allowed: {', '.join(kinds)}")
    module = plugins.load(kinds[config.kind])
    with loading(config):
        extractor: Extractor = module.load(config, device)
    return extractor
