"""What a metric is: its name, how to read it, what it is computed from, and the function that computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sd2eval.metrics.claims import Claim
from sd2eval.records import Direction
from sd2eval.statistics import Estimate

Kind = Literal["distance", "kernel", "score", "paired", "other"]
Part = Literal["image", "mask", "depth"]
Against = Literal["reference", "texts"]

ROLES = ("distance", "score", "perceptual")
"""Networks that every protocol fills in; any other that a metric names is a YAML in `conf/extractor/`."""
UNMEASURED = Claim("expected value at this n", "its coverage was not measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric is called, how to read it, and how to compute it; declared once."""

    name: str
    """Key in results; `fid`, `kid`, `clip_score` always mean the real extractors."""
    label: str
    """Name for axes and table heads."""
    describes: str
    """One sentence for people who meet the metric for the first time."""
    direction: Direction
    unit: str
    kind: Kind
    """Role in a study: `distance` can be the plot's y axis, `score` its x axis, `kernel` is an unbiased
    distance; `paired` compares each image with the caption's own; these and `other` are in no plot."""
    extractor: str | None = None
    """Which of a protocol's networks it needs: a role (`distance`, `score`, `perceptual`) that the protocol
    fills, or the name of a YAML in `conf/extractor/`; None for a formula or the checkpoint's own network."""
    output: str = "features"
    """Which array of the extractor."""
    needs: tuple[str, ...] = ()
    """Kinds of extractor that its name stands for; another one there is refused. Empty: any."""
    against: Against | None = None
    """What `estimate` compares with: the reference images' features, the captions' embeddings, or nothing."""
    applies_to: tuple[str, ...] = ("text", "depth", "inpainting", "upscaling")
    """The kinds of conditioning for which it says something; elsewhere it has no row."""
    part: Part = "image"
    """What of the image a paired metric compares."""
    mini: bool = False
    """Computed with the extractors of the embedded mini world; not comparable with any published number."""
    factor: float = 1.0
    """Tables show value x factor, and say so; results always hold the plain value."""
    smallest: int = 2
    """Generated images that it needs at least."""
    smallest_reference: int = 2
    """Real images that it needs at least, if it compares with them."""
    claim: Claim = UNMEASURED
    """What its interval is about, and where it is approximate."""
    estimate: Callable[[Any, Any], Estimate]
    """Takes the extractor's output [n, ...] and, by `against`, a `Reference`, embeddings [n, d] or None."""

    @property
    def array(self) -> str:
        """Name of the array in a shard that it is computed from: an extractor's output, or its own values."""
        if self.kind == "paired":
            return self.name
        return array_name(str(self.extractor), self.output)


def array_name(extractor: str, output: str) -> str:
    """Return what the output of one of a protocol's extractors is called in a shard."""
    return extractor if output == "features" else f"{extractor}.{output}"
