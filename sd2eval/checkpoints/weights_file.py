"""A file of tensors, `.safetensors` or `.ckpt`, read a few tensors at a time and without running its code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from sd2eval.errors import InputError

GROUP_BYTES = 256 * 2**20
"""Tensors are read in groups of about this size; the file is unmapped in between: memory holds one group."""

INERT = ("pytorch_lightning.", "lightning.")
"""Training leftovers in published pickles (names of callbacks): replaced by `_Inert`, never imported."""

FOREIGN = {
    b"<": "is a web page, not weights",
    b"version https://git-lfs": "is a git-lfs pointer, not the file it points to (`git lfs pull` gets that)",
}
"""What a download that went wrong begins with."""


class _Inert:
    """Stands where a pickle names a training library's class; does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class WeightsFile:
    """The tensors of a file by name.

    Raises:
        InputError: it is not such a file, is cut, or holds code besides tensors (which is not run).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._safetensors = _is_safetensors(path)
        self._inert: list[str] = []
        if not self._safetensors:
            with _one_line(path):
                self._inert = _inert_globals(path)
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of every tensor."""
        self._bytes: dict[str, int] = {}
        with self._tensors() as tensors:
            for name, shape, size in tensors.listing():
                self.shapes[name] = shape
                self._bytes[name] = size

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield tensors by name; one must be copied before the next is asked for."""
        group: list[str] = []
        for name in names:
            group.append(name)
            if sum(self._bytes[name] for name in group) >= GROUP_BYTES:
                yield from self._group(group)
                group = []
        yield from self._group(group)

    def _group(self, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        with self._tensors() as tensors:
            for name in names:
                tensor = tensors.get(name)
                if not tensor.is_floating_point() or tensor.is_meta or tensor.layout is not torch.strided:
                    raise InputError(f"{self.path}: {name} holds no floating point numbers ({tensor.dtype})")
                yield name, tensor

    @contextmanager
    def _tensors(self) -> Iterator[_Safetensors | _Pickled]:
        with _one_line(self.path):
            if self._safetensors:
                with safe_open(self.path, "pt") as opened:
                    yield _Safetensors(opened)
                return
            with safe_globals([(_Inert, name) for name in self._inert]):
                loaded = torch.load(
                    self.path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(self.path)
                )
            yield _Pickled(_state_dict(loaded, self.path))


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Whatever a damaged or hostile file makes the readers raise becomes one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise _code_inside(path, [foreign[1]]) from error
        reason = " ".join(str(error).split())[:120]
        # torch's own text recommends to read the file without this protection.
        shown = "" if not reason or reason.startswith("Weights only load failed") else f" ({reason})"
        raise InputError(f"{path}: cannot be read as weights{shown}; is it whole?") from error


class _Safetensors:
    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def listing(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        for name in self._opened.keys():  # noqa: SIM118 - no mapping
            part = self._opened.get_slice(name)
            shape = tuple(part.get_shape())
            yield (
                name,
                shape,
                torch.Size(shape).numel() * 4,
            )  # at most: nothing wider than float32 is published

    def get(self, name: str) -> torch.Tensor:
        return self._opened.get_tensor(name)  # type: ignore[no-any-return]


class _Pickled:
    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self._state = state

    def listing(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        for name, tensor in self._state.items():
            yield name, tuple(tensor.shape), tensor.numel() * tensor.element_size()

    def get(self, name: str) -> torch.Tensor:
        return self._state[name]


def _is_safetensors(path: Path) -> bool:
    """Tell the two formats apart by their first bytes: a name may be wrong.

    Raises:
        InputError: the file cannot be read, is empty, or is something else that downloads leave behind.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not start:
        raise InputError(f"{path}: is empty")
    for begin, what in FOREIGN.items():
        if start.lstrip().startswith(begin):
            raise InputError(f"{path}: {what}")
    return start[8:9] == b"{"  # after the length of its JSON header


def _inert_globals(path: Path) -> list[str]:
    """Return the classes a pickle names besides tensors; refuse more than training leftovers."""
    names = get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    foreign = [name for name in names if not name.startswith(INERT)]
    if foreign:
        raise _code_inside(path, foreign)
    return names


def _code_inside(path: Path, names: list[str]) -> InputError:
    return InputError(
        f"{path}: holds code besides tensors ({', '.join(sorted(names)[:3])}), which was not run; "
        "take the .safetensors file instead, or a .ckpt that holds tensors only"
    )


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no tensors by name")
    return {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
