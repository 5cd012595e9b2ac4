"""What a run is: every setting and every input that moves a number, by name and digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sd2eval.checkpoints import Weights
from sd2eval.config import CheckpointConfig, ProtocolConfig, SweepConfig, digest, identity_fields
from sd2eval.dataset import Dataset
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS
from sd2eval.networks import ON_DEMAND, Networks
from sd2eval.records import RunInfo
from sd2eval.reference import files_digest, reference_digest


def run_identity(config: SweepConfig, definitions: Sequence[CheckpointConfig], dtype: str) -> dict[str, Any]:
    """Return all config fields that change a number, by dotted key."""
    fields = identity_fields(config)
    fields = {
        key: value for key, value in fields.items() if key.split(".")[0] not in ("checkpoint", "checkpoints")
    }
    for definition in definitions:
        fields |= identity_fields(definition, f"checkpoints.{definition.name}.")
    return fields | {"dtype": dtype}


def check_reference(dataset: Dataset, protocol: ProtocolConfig) -> None:
    """Refuse too few real images for a metric before anything is drawn.

    Raises:
        InputError: names the metric and how many it needs.
    """
    for name in protocol.metrics:
        metric, count = METRICS[name], len(dataset.reference)
        if metric.against == "reference" and count < metric.smallest_reference:
            least = metric.smallest_reference
            raise InputError(
                f"protocol.metrics: {name} needs at least {least} real images, there are {count}"
            )


def input_digests(
    weights: Mapping[str, Weights], dataset: Dataset, protocol: ProtocolConfig, networks: Networks
) -> dict[str, str]:
    """Return the SHA-256 of every input, by name; refuses weights that are not what their name says."""
    digests = {f"weights/{name}": found.digest for name, found in weights.items()}
    own = {"data/captions": dataset.captions_digest} | networks.digests
    files = files_digest(dataset.reference)
    own |= {
        reference_name(slot): reference_digest(files, protocol, slot, extractor)
        for slot, extractor in networks.against("reference").items()
    }
    # The network that is loaded for some checkpoints only does not name the protocol.
    named = {name: value for name, value in own.items() if name != f"extractor/{ON_DEMAND}"}
    return digests | own | {"protocol": digest(identity_fields(protocol) | named)}


def reference_name(slot: str) -> str:
    """Return what the digest of the reference's features by an extractor is called."""
    return "reference" if slot == "distance" else f"reference/{slot}"


def same_files(info: RunInfo, config: SweepConfig, definitions: Sequence[CheckpointConfig]) -> bool:
    """Whether weights are taken from where a run took them; elsewhere their digests must be seen."""
    here = {definition.name: asdict(definition) for definition in definitions}
    networks = [_without_batch(info.config["protocol"]), _without_batch(asdict(config.protocol))]
    return networks[0] == networks[1] and info.config["checkpoint_definitions"] == here


def _without_batch(protocol: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_batch(value) if isinstance(value, dict) else value
        for key, value in protocol.items()
        if key != "batch_size"
    }


def refuse_other(info: RunInfo, fields: dict[str, Any]) -> None:
    """Refuse to write into a folder that holds another run.

    Raises:
        InputError: names the fields that differ, there and here.
    """
    there = info.identity_fields
    names = [name for name in sorted(there.keys() | fields.keys()) if there.get(name) != fields.get(name)]
    names = [name for name in names if name in fields or not name.startswith("digests.")]
    if names:
        shown = "; ".join(f"{name}: {there.get(name)} there, {fields.get(name)} here" for name in names[:4])
        more = f"; and {len(names) - 4} more" if len(names) > 4 else ""
        raise InputError(f"out holds another run ({shown}{more}); give another out=DIR or the same settings")
