"""What extractors of published weights share: where the file is, and all of its tensors in their places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import local_source
from sd2eval.weights import models


def published_file(config: ExtractorConfig, name: str) -> Path:
    """Return an extractor's weights file: `source`, or the one called `name` in it, or that of `pretrained`.

    Args:
        config: `source` is a local file or folder, or null for the published weights named `pretrained`.
        name: of the file in a folder.

    Raises:
        InputError: it is neither here nor can it be fetched.
    """
    if not config.source:
        return obtained(config, config.pretrained)
    path = local_source(config)
    if path.is_dir() and not (path / name).is_file():
        raise InputError(f"extractor '{config.name}': no {name} in {path}")
    return path / name if path.is_dir() else path


def obtained(config: ExtractorConfig, name: str | None) -> Path:
    """Return the published weights called `name`, fetched and checked.

    Raises:
        InputError: no name, or they cannot be had.
    """
    if name is None:
        raise InputError(f"extractor '{config.name}': neither `source` nor `pretrained` says which weights")
    return models.obtain(name)


def only_own_preprocessing(config: ExtractorConfig) -> None:
    """Refuse a `preprocess` where the kind has but one.

    Raises:
        InputError: it is set.
    """
    if config.preprocess is not None:
        raise InputError(
            f"extractor '{config.name}': preprocess must be null ({config.kind} has its authors' only), "
            f"not '{config.preprocess}'"
        )


def tensors(
    weights: WeightsFile,
    shapes: Mapping[str, torch.Size],
    names: Mapping[str, str],
    unused: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Return a network's tensors from a file, float32, each under the network's own name.

    Args:
        weights: the file.
        shapes: of the network's tensors by name.
        names: of each in the file.
        unused: what the file may hold besides, because nothing is computed with it.

    Raises:
        InputError: a tensor is missing, is of another shape, has no place in the network, or is not finite.
    """
    wanted, there = set(names.values()), weights.shapes.keys()
    for what, wrong in (("are missing", wanted - there), ("find no place", there - wanted - set(unused))):
        if wrong:
            raise InputError(f"{weights.path}: {len(wrong)} tensors {what} (first: {min(wrong)})")
    for ours, theirs in names.items():
        if weights.shapes[theirs] != tuple(shapes[ours]):
            raise InputError(
                f"{weights.path}: {theirs} has shape {weights.shapes[theirs]}, expected {tuple(shapes[ours])}"
            )
    places = {theirs: ours for ours, theirs in names.items()}
    state = {}
    for theirs, tensor in weights.read(places):
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{weights.path}: NaN or infinity in its tensor {theirs}")
        state[places[theirs]] = tensor.float().clone()
    return state
