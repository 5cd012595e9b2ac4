"""A protocol's networks, loaded together: two for features, one for perceptual distances where needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from sd2eval.config import CheckpointConfig, ProtocolConfig
from sd2eval.features import Extractor, load_extractor
from sd2eval.metrics import Metric, applicable
from sd2eval.perceptual import Perceptual, load_perceptual


@dataclass(frozen=True)
class Extractors:
    """The protocol's networks."""

    distance: Extractor
    score: Extractor
    perceptual: Perceptual | None
    """None where no metric of the run needs it; it is then not loaded, nor its weights fetched."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each network's weights, by the name of the input."""
        found = {"extractor/distance": self.distance.digest, "extractor/score": self.score.digest}
        if self.perceptual is not None:
            found["extractor/perceptual"] = self.perceptual.digest
        return found


def load_extractors(
    protocol: ProtocolConfig, definitions: Sequence[CheckpointConfig], device: torch.device
) -> Extractors:
    """Load what the protocol's metrics need for these checkpoints.

    Raises:
        InputError: weights that are not here and cannot be fetched, or that are others.
    """
    needed = [metric for definition in definitions for metric in paired_metrics(protocol, definition)]
    perceptual = any(metric.extractor_role == "perceptual" for metric in needed)
    return Extractors(
        load_extractor(protocol.distance, device),
        load_extractor(protocol.score, device),
        load_perceptual(protocol.perceptual, device) if perceptual else None,
    )


def paired_metrics(protocol: ProtocolConfig, definition: CheckpointConfig) -> list[Metric]:
    """Return the protocol's metrics that compare this checkpoint's images with the captions' own."""
    metrics = applicable(protocol.metrics, asdict(definition))
    return [metric for metric in metrics if metric.kind == "paired"]
