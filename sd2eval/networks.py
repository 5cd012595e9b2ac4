"""The networks that a run's metrics need, loaded together, and what is asked of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import CheckpointConfig, ProtocolConfig
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor, Images
from sd2eval.metrics import Metric, applicable, array_name

ON_DEMAND = "perceptual"
"""The role whose network is loaded for some checkpoints only; its name pins its weights."""


@dataclass(frozen=True)
class Networks:
    """The loaded extractors by slot: the protocol's roles, and further ones by name."""

    by_slot: dict[str, Extractor]
    metrics: list[Metric]
    """All that some checkpoint of the run has."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each network's weights, by the name of the input."""
        return {f"extractor/{slot}": extractor.digest for slot, extractor in self.by_slot.items()}

    def against(self, what: str) -> dict[str, Extractor]:
        """Return the extractors whose metrics compare with the `reference` or with the `texts`."""
        slots = dict.fromkeys(metric.extractor for metric in self.metrics if metric.against == what)
        return {slot: self.by_slot[slot] for slot in slots if slot}

    @property
    def perceptual(self) -> Extractor | None:
        """The network of perceptual distances; None where no metric of the run needs it."""
        return self.by_slot.get(ON_DEMAND)


def load_networks(
    protocol: ProtocolConfig, definitions: Sequence[CheckpointConfig], device: torch.device
) -> Networks:
    """Load what the protocol's metrics need for these checkpoints.

    Raises:
        InputError: weights that are not here and cannot be fetched, or that are others; or a network without
            what a metric asks of it.
    """
    found = {
        metric.name: metric for definition in definitions for metric in own_metrics(protocol, definition)
    }
    slots = dict.fromkeys(metric.extractor for metric in found.values() if metric.extractor)
    networks = Networks(
        {slot: load_extractor(protocol.extractor(slot), device) for slot in slots}, list(found.values())
    )
    for metric in found.values():
        _check(metric, networks)
    return networks


def own_metrics(protocol: ProtocolConfig, definition: CheckpointConfig) -> list[Metric]:
    """Return the protocol's metrics that a checkpoint's images have."""
    return applicable(protocol.metrics, asdict(definition))


def paired_metrics(protocol: ProtocolConfig, definition: CheckpointConfig) -> list[Metric]:
    """Return the protocol's metrics that compare this checkpoint's images with the captions' own."""
    return [metric for metric in own_metrics(protocol, definition) if metric.kind == "paired"]


def extract(
    networks: Networks, metrics: Sequence[Metric], images: Images, captions: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return what the metrics are computed from, by the name that `Metric.array` gives.

    Args:
        networks: of the run.
        metrics: those of the checkpoint; paired ones are measured elsewhere.
        images: uint8 [N, R, R, 3].
        captions: of each image, [N].

    Raises:
        InputError: a network does not give the output that a metric names.
    """
    wanted: dict[str, set[str]] = {}
    for metric in metrics:
        if metric.kind != "paired" and metric.extractor:
            wanted.setdefault(metric.extractor, set()).add(metric.output)
    arrays: dict[str, NDArray[np.float32]] = {}
    for slot, outputs in wanted.items():
        extractor = networks.by_slot[slot]
        given = dict(extractor.images(images)) if extractor.images else {}
        if extractor.pairs and outputs - given.keys():
            given |= extractor.pairs(images, captions)
        if outputs - given.keys():
            lacks = min(outputs - given.keys())
            raise InputError(f"extractor '{extractor.name}': gives {', '.join(given)}, but no {lacks}")
        arrays |= {array_name(slot, output): given[output] for output in outputs}
    return arrays


def _check(metric: Metric, networks: Networks) -> None:
    """Refuse a network that cannot do what a metric asks of it, before anything is drawn."""
    if metric.extractor is None:
        return
    extractor = networks.by_slot[metric.extractor]
    lacks = None
    if metric.kind == "paired":
        lacks = "perceptual distances" if extractor.distances is None else None
    elif extractor.images is None and (extractor.pairs is None or metric.against is not None):
        lacks = "features of images"
    elif metric.against == "texts" and extractor.texts is None:
        lacks = "embeddings of texts"
    if lacks:
        raise InputError(
            f"extractor '{extractor.name}': has no {lacks}, which {metric.name} is computed from"
        )
