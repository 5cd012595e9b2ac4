"""A file's tensors into a network: all of them, no other, each of its own shape, and finite."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.errors import InputError

PARALLEL = "module."
"""What names begin with that were saved from several devices at once."""


def fill(model: nn.Module, file: Path) -> None:
    """Load a file's tensors into a network, in the network's own dtype, a few at a time.

    Raises:
        InputError: the file cannot be read, belongs to another network, or holds NaN or infinity.
    """
    _refuse_torchscript(file)
    weights, places = WeightsFile(file), model.state_dict()
    ours = {name: name.removeprefix(PARALLEL) for name in weights.shapes}
    _refuse_other_network(weights, ours, places)
    for name, tensor in weights.read(weights.shapes):
        if not torch.isfinite(tensor).all():
            raise _not_finite(file, name)
        places[ours[name]].copy_(tensor.reshape(places[ours[name]].shape))


def refuse_not_finite(model: nn.Module, file: Path) -> None:
    """Say of NaN or infinity in the weights of a loaded network where it is.

    Raises:
        InputError: there is some.
    """
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise _not_finite(file, name)


def _not_finite(file: Path, name: str) -> InputError:
    return InputError(f"{file}: NaN or infinity in its tensor {name}")


def _refuse_other_network(weights: WeightsFile, ours: dict[str, str], places: dict[str, Any]) -> None:
    """Compare names and shapes; a single number may have no dimension or one."""
    there = set(ours.values())
    for what, names in (("are missing", places.keys() - there), ("find no place", there - places.keys())):
        if names:
            raise InputError(
                f"{weights.path}: holds the weights of another network: {len(names)} tensors {what} "
                f"(first: {min(names)})"
            )
    for name, shape in weights.shapes.items():
        wanted = tuple(places[ours[name]].shape)
        if shape != wanted and {shape, wanted} != {(), (1,)}:
            raise InputError(
                f"{weights.path}: holds the weights of another network: {name} has shape {list(shape)}, "
                f"expected {list(wanted)}"
            )


def _refuse_torchscript(file: Path) -> None:
    """Say what OpenAI's own CLIP files are, and where the same weights are without a program around them."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise InputError(
                f"{file}: is a TorchScript archive, which holds code; the same weights without it are what "
                "`python -m sd2eval models fetch` gets"
            )
