"""A bench in a temporary folder, for tests of probes of the mini family."""

from __future__ import annotations

from pathlib import Path

from sd2eval.checkpoints import find_weights
from sd2eval.config import CheckpointConfig, probing
from sd2eval.devices import resolve_device
from sd2eval.energy import EnergyMeter
from sd2eval.interrupt import Interrupt
from sd2eval.probes.bench import Shelf, Workbench
from sd2eval.probes.drawing import Studio
from sd2eval.probes.run import whole_dataset
from sd2eval.progress import Progress


def bench_of(probe: str, folder: Path, *overrides: str) -> tuple[Workbench, list[CheckpointConfig]]:
    """Return a bench for a probe, drawing below a folder, and the definitions of its checkpoints."""
    config, definitions = probing.from_overrides("device=cpu", *overrides)
    dataset, device = whole_dataset(config), resolve_device("cpu")
    weights = {definition.name: find_weights(definition) for definition in definitions}
    meter, progress = EnergyMeter("USA"), Progress(0, quiet=True)
    studio = Studio(folder, config, weights, dataset, device, "float32", meter, progress, Interrupt())
    return Workbench(probe, Shelf(config, dataset, studio, device)), definitions
