"""The floor under a run's distances: what its autoencoders alone cost, where a probe measured it alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sd2eval.config.schema import REAL_GEOMETRY, features_digest
from sd2eval.pareto import roles
from sd2eval.records import RunInfo
from sd2eval.seals import unseal

PROBE = "autoencoder"
ELSEWHERE = ("protocol.score.", "protocol.perceptual.", "protocol.distance.source_sha256")
"""Beginnings of settings of a protocol that move no distance, or whose files a digest stands for."""


@dataclass(frozen=True)
class Floors:
    """Floors of checkpoints, and why others have none."""

    values: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """One line for each floor that was measured otherwise than the run."""


def floors(path: Path, results: pd.DataFrame, info: RunInfo) -> Floors:
    """Return the floors, in the unit of the distance of the plot; none where no probe measured one.

    Args:
        path: the run folder.
        results: columns of `Score`; the floor of `fid` is `rfid`, of `fd_mini` `rfd_mini`.
        info: of the run, which a floor has to be measured like: weights, protocol, data and network.
    """
    found, distance = Floors(), roles(results).get("distance")
    if distance is None:
        return found
    for one in _measured(path):
        name = one["checkpoint"]
        values = [row["value"] for row in one["rows"] if row["metric"] == f"r{distance.name}"]
        if name not in set(results["checkpoint"]) or not values or values[0] is None:
            continue
        reasons = list(_otherwise(one, info))
        if reasons:
            more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
            found.left_out.append(f"no floor of {name}: it was measured with {reasons[0]}{more}")
        else:
            found.values[name] = float(values[0])
    return found


def _measured(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield what the probe measured; a damaged file is none, and probes say so themselves."""
    for file in sorted((path / "probes" / "measured").glob(f"{PROBE}_*.json")):
        try:
            yield unseal(file.read_bytes())
        except (OSError, ValueError):
            continue


def _otherwise(one: Mapping[str, Any], info: RunInfo) -> Iterator[str]:
    """Yield with what a floor was measured that the run has otherwise."""
    own, there, name = one["fields"], info.identity_fields, one["checkpoint"]
    pairs = {key: (value, there.get(key)) for key, value in own.items() if key.startswith("protocol.")}
    pairs = {key: pair for key, pair in pairs.items() if not key.startswith(ELSEWHERE)}
    pairs["resolution"] = (own.get("checkpoint.resolution"), there.get(f"checkpoints.{name}.resolution"))
    for key, (value, run) in pairs.items():
        if value != run:
            yield f"{key}={value}, the run's distances with {run}"
    network = one["digests"].get(own.get("protocol.distance.name"))
    digests = {
        "weights": (own.get("digests.weights"), info.digests.get(f"weights/{name}")),
        "captions": (own.get("digests.captions"), info.digests.get("data/captions")),
        "the distance network": (network, info.digests.get("extractor/distance")),
    }
    for what, (here, run) in digests.items():
        if here != run:
            yield f"{what} {_short(here)}, the run's distances with {_short(run)}"
    if not same_images(str(own.get("digests.images")), info):
        yield "other real images than the run's distances"


def same_images(files: str, info: RunInfo) -> bool:
    """Whether a run's reference is these images; True where it has none.

    Args:
        files: `reference.files_digest` of the images.
        info: of the run, which records the digest of their features.
    """
    there, network = info.digests.get("reference"), info.digests.get("extractor/distance")
    if there is None or network is None:
        return True
    protocol, own = info.identity_fields, "protocol.distance."
    settings = {key: protocol.get(f"protocol.{key}") for key in REAL_GEOMETRY}
    settings |= {key.removeprefix(own): value for key, value in protocol.items() if key.startswith(own)}
    return there == features_digest(settings, files, network)


def _short(digest: str | None) -> str:
    return f"{digest[:12]}..." if digest else "none"
