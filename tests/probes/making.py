"""What tests of components and probes share: settings of a component, and where real photographs are."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from sd2eval.config import ComponentConfig

REAL = Path(__file__).resolve().parents[3] / "shared" / "coco"
real_only = pytest.mark.skipif(not REAL.is_dir(), reason="the COCO files are not in ../shared/coco")


def settings(kind: str, **keys: Any) -> ComponentConfig:
    """Settings of a component that is called like its kind."""
    known = {"model": None, "pretrained": None, "source": None, "dtype": "float32", "batch_size": 4}
    return ComponentConfig(**{"name": kind, "kind": kind, "options": {}} | known | keys)


def loaded(kind: str, **keys: Any) -> Any:
    """A component of a kind, on the CPU."""
    module = import_module(f"sd2eval.probes.components.{kind}")
    return module.load(settings(kind, **keys), torch.device("cpu"))
