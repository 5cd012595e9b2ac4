"""What every component is and shares: a name, a digest, and one line for what goes wrong when it is loaded.

A kind is a module of this package with `load(config, device)`. What moves its answers and its digest does not
see stands beside: `PACKAGES`, distributions whose versions count, and `identity(config)`, the SHA-256 of what
it finds on the machine, such as a program. It imports its optional packages inside
`load` or what `load` calls, with `require`; published weights come from `sd2eval.weights.models.obtain`, a
local copy from `config.source`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

from sd2eval.checkpoints.sources import local_path
from sd2eval.config import ComponentConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import FAULTS
from sd2eval.probes.base import Unavailable
from sd2eval.transfer.digests import file_digest

EXTRA = "probes"


class Component(Protocol):
    """A detector, a reader or a head; each kind adds its own functions."""

    @property
    def name(self) -> str:
        """As in conf/component/."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything it measures with."""


def require(module: str, package: str, config: ComponentConfig) -> ModuleType:
    """Import an optional package.

    Args:
        module: to import, such as `cv2`.
        package: as pip calls it.
        config: of the component that needs it.

    Raises:
        Unavailable: it is not installed, or does not load; says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        reason = f"{package} is not installed" if missing else f"{package} does not load ({error})"
        raise Unavailable(f"component '{config.name}': {reason}; pip install 'sd2eval[{EXTRA}]'") from error


@contextmanager
def loading(config: ComponentConfig) -> Iterator[None]:
    """Turn what goes wrong while a component is loaded into one line.

    Raises:
        Unavailable: names the component, the reason, and where to put a local copy.
    """
    try:
        yield
    except Unavailable:
        raise
    except InputError as error:
        raise Unavailable(f"component '{config.name}': {error}") from error
    except FAULTS as error:
        reason = " ".join(str(error).split())[:300]
        raise Unavailable(
            f"component '{config.name}': cannot be loaded ({reason}); a local copy is named by "
            f"components.{config.name}.source=FILE"
        ) from error


def local_source(config: ComponentConfig) -> Path:
    """Return the folder or file that a component's `source` names.

    Raises:
        Unavailable: it names none, or one that is not on this machine.
    """
    path = local_path(config.source or "")
    if not config.source or path is None or not path.exists():
        raise Unavailable(f"component '{config.name}': source '{config.source}' is not on this machine")
    return path


def files_digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 over the names and bytes of files, in their order."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name} {file_digest(file)}\n".encode())
    return total.hexdigest()


def check(component: Component, config: ComponentConfig) -> None:
    """Refuse a component that cannot be named in a result."""
    assert component.name == config.name, f"{config.kind}: gives its component another name"
    assert re.fullmatch("[0-9a-f]{64}", component.digest), f"{config.kind}: its digest is no SHA-256"
