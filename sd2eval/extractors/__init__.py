"""Extractors by kind: one module each with `load(config, device)`, found by its name (`sd2eval.plugins`)."""

from __future__ import annotations

import re
from types import ModuleType
from typing import TYPE_CHECKING

from sd2eval import plugins
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError

if TYPE_CHECKING:
    import torch

    from sd2eval.extractors.base import Extractor


def published_weights(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the names of the published weights that loading an extractor fetches where they are not here.

    A kind that fetches any says so in its module's `needs(config)`.

    Raises:
        InputError: an unknown kind, or settings that make no sense.
    """
    needs = getattr(_module(config)[0], "needs", None)
    return () if needs is None else tuple(needs(config))


def load_extractor(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load an extractor by its `kind`.

    Raises:
        InputError: an unknown kind, or weights that are not here, are others or cannot be fetched; or a
            plug-in that is not as docs/plugins.md says.
    """
    from sd2eval.extractors.base import Extractor, loading

    module, where = _module(config)
    if not callable(getattr(module, "load", None)):
        raise InputError(f"plug-in {where}: has no function load(config, device)")
    with loading(config):
        extractor = module.load(config, device)
    if not isinstance(extractor, Extractor):
        raise InputError(
            f"plug-in {where}: load() must return a sd2eval.extractors.base.Extractor, "
            f"not {type(extractor).__name__}"
        )
    if not re.fullmatch("[0-9a-f]{64}", extractor.digest):
        raise InputError(
            f"plug-in {where}: the digest of extractor '{config.name}' is no SHA-256; state_digest gives one"
        )
    return extractor


def _module(config: ExtractorConfig) -> tuple[ModuleType, str]:
    """Return the module of an extractor's kind, and how messages call it."""
    kinds = plugins.extractor_kinds()
    if config.kind not in kinds:
        raise InputError(f"extractor kind '{config.kind}' is unknown; allowed: {', '.join(kinds)}")
    return plugins.load(kinds[config.kind]), plugins.describe(kinds[config.kind])
