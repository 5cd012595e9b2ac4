"""The networks that a run's metrics need, loaded together, and what is asked of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import CheckpointConfig, ProtocolConfig
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor, published_weights
from sd2eval.extractors.base import Extractor, Images
from sd2eval.metrics import Metric, applicable, array_name
from sd2eval.plugins import extractor_kinds, origin
from sd2eval.weights.models import obtain

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
    loaded = {slot: load_extractor(protocol.extractor(slot), device) for slot in slots(protocol, definitions)}
    networks = Networks(loaded, list(found.values()))
    for metric in found.values():
        _check(metric, networks)
    _try_out(networks, protocol, definitions)
    return networks


def _try_out(networks: Networks, protocol: ProtocolConfig, definitions: Sequence[CheckpointConfig]) -> None:
    """Let extractors show on noise what they give, before anything is drawn.

    Those of other packages; and all where images are not brought to one size.

    Raises:
        InputError: see `extract`; or an extractor does not take images of a checkpoint's size.
    """
    kinds, as_drawn = extractor_kinds(), protocol.fit == "none"
    tried = {slot for slot in networks.by_slot if as_drawn or origin(kinds[protocol.extractor(slot).kind])}
    metrics = [metric for metric in networks.metrics if metric.extractor in tried]
    sizes = {definition.resolution for definition in definitions} if as_drawn else {protocol.resolution}
    for size in sorted(sizes):
        noise = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        extract(networks, metrics, noise, ["a photo of a ball"] * len(noise))


def fetch_weights(
    protocol: ProtocolConfig, definitions: Sequence[CheckpointConfig], *, progress: bool = True
) -> None:
    """Get the published weights of the networks that the metrics need, where they are not here yet.

    Raises:
        InputError: they are not to be had, or are others.
        Stopped: the connection broke off; the next call goes on from there.
    """
    for slot in slots(protocol, definitions):
        for name in published_weights(protocol.extractor(slot)):
            obtain(name, progress=progress)


def slots(protocol: ProtocolConfig, definitions: Sequence[CheckpointConfig]) -> list[str]:
    """Return the roles and names of the networks that the metrics of these checkpoints need."""
    metrics = [metric for definition in definitions for metric in own_metrics(protocol, definition)]
    return list(dict.fromkeys(metric.extractor for metric in metrics if metric.extractor))


def own_metrics(protocol: ProtocolConfig, definition: CheckpointConfig) -> list[Metric]:
    """Return the protocol's metrics that a checkpoint's images have."""
    return applicable(protocol.metrics, asdict(definition))


def paired_metrics(protocol: ProtocolConfig, definition: CheckpointConfig) -> list[Metric]:
    """Return the protocol's metrics that compare this checkpoint's images with the captions' own."""
    return [metric for metric in own_metrics(protocol, definition) if metric.kind == "paired"]


def extract(
    networks: Networks,
    metrics: Sequence[Metric],
    images: Images,
    captions: Sequence[str],
    valid: NDArray[np.bool_] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return what the metrics are computed from, by the name that `Metric.array` gives.

    Args:
        networks: of the run.
        metrics: those of the checkpoint; paired ones are measured elsewhere.
        images: uint8 [N, R, R, 3].
        captions: of each image, [N].
        valid: which images count, [N]; None: all. What is computed from another may be NaN.

    Raises:
        InputError: a network does not give the output that a metric names, or not one finite row per image.
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
        for output in outputs:
            _check_output(extractor.name, output, given[output], len(images), valid)
            arrays[array_name(slot, output)] = given[output]
    return arrays


def _check_output(name: str, output: str, array: Any, count: int, valid: NDArray[np.bool_] | None) -> None:
    """Refuse what is not float32 [count, d], or [count] of `value`, or not finite for a valid image."""
    shape, axes = ("[N]", 1) if output == "value" else ("[N, d]", 2)
    is_array = isinstance(array, np.ndarray)
    given = f"{array.dtype} {[*array.shape]}" if is_array else type(array).__name__
    if not is_array or array.dtype != np.float32 or array.ndim != axes or len(array) != count:
        raise InputError(
            f"extractor '{name}': `{output}` must be a NumPy array, float32 {shape}; got {given} for "
            f"{count} images"
        )
    used = array if valid is None else array[valid]
    bad = ~np.isfinite(used.reshape(len(used), -1)).all(axis=1)
    if bad.any():
        raise InputError(
            f"extractor '{name}': `{output}` is NaN or infinite for {bad.sum()} of {len(bad)} images"
        )


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
