"""Components by kind: one module each with `load(config, device)`, found by its file name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sd2eval.config import ComponentConfig
from sd2eval.probes.base import Unavailable
from sd2eval.probes.components.base import Component, check, loading

if TYPE_CHECKING:
    import torch

NOT_A_KIND = ("base",)


def kinds() -> list[str]:
    """Return the kinds of components; nothing is imported."""
    found = {file.stem for file in Path(__file__).parent.glob("[!_]*.py")}
    return sorted(found - set(NOT_A_KIND))


def packages(config: ComponentConfig) -> tuple[str, ...]:
    """Return the distributions whose versions move what a component finds; its digest does not see them.

    Raises:
        Unavailable: an unknown kind.
    """
    return tuple(getattr(_module(config), "PACKAGES", ()))


def identity(config: ComponentConfig) -> str:
    """Return the SHA-256 of what a kind finds on the machine and no package brings; empty for other kinds.

    Raises:
        Unavailable: an unknown kind, or what it needs is not there.
    """
    of_kind = getattr(_module(config), "identity", None)
    return str(of_kind(config)) if of_kind else ""


def load(config: ComponentConfig, device: torch.device) -> Component:
    """Load a component by its `kind`.

    Raises:
        Unavailable: an unknown kind, a package that is not installed, or weights that are not here, are cut
            or are others; one line that says how to get it.
    """
    with loading(config):
        component: Component = _module(config).load(config, device)
    check(component, config)
    return component


def _module(config: ComponentConfig) -> ModuleType:
    if config.kind not in kinds():
        raise Unavailable(f"component '{config.name}': kind '{config.kind}' is none of {', '.join(kinds())}")
    return import_module(f"sd2eval.probes.components.{config.kind}")
