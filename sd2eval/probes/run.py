"""Run probes: each of every checkpoint, from prompts to rows, sentences and pictures, then the tables.

Expensive things happen once: a checkpoint stays loaded for all its probes, pictures are shared, and what was
measured with the same settings and inputs is read instead of measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sd2eval import engines, images, provenance, report
from sd2eval.checkpoints import find_weights
from sd2eval.config import CheckpointConfig, ProbeConfig, PromptsConfig, digest, identity_fields, probing
from sd2eval.dataset import Dataset, load_dataset
from sd2eval.devices import device_name, keep_freed_memory, resolve_device, resolve_dtype, set_precision
from sd2eval.energy import EnergyMeter
from sd2eval.errors import InputError, room
from sd2eval.interrupt import Interrupt
from sd2eval.probes import contact, joining, records, registry, written
from sd2eval.probes.base import Answer, Probe, PromptSet
from sd2eval.probes.bench import Shelf, Workbench
from sd2eval.probes.declared import autoencoder
from sd2eval.probes.drawing import Key, Studio, store_held
from sd2eval.probes.identity import identity, of_probes, protocol_name
from sd2eval.probes.records import Measured
from sd2eval.progress import Progress
from sd2eval.store import RunFolder


@dataclass
class ProbeRun:
    """What a call measured or found measured."""

    path: Path
    names: list[str]
    """The probes that were asked for."""
    measured: list[Measured]
    """Everything that the folder holds."""
    blur: bool
    """Whether pictures that may offend are blurred."""
    answered: set[str] = field(default_factory=set)
    """Stems of what this call measured, or found measured with its settings and inputs."""
    left_out: list[str] = field(default_factory=list)
    """One line for each probe and checkpoint that could not be measured."""
    differences: dict[str, list[str]] = field(default_factory=dict)
    """How each answer in the folder differs from the sweep whose folder it joined, by its stem."""

    @property
    def answers(self) -> list[Measured]:
        """What this call answers; the folder may hold more, of earlier calls."""
        return [one for one in self.measured if one.stem in self.answered]

    @property
    def notes(self) -> list[str]:
        """How what this call answers differs from the sweep whose folder it joined."""
        lines = (line for one in self.answers for line in self.differences.get(one.stem, ()))
        return list(dict.fromkeys(lines))


def run_probes(*words: str) -> ProbeRun:
    """Run probes from Python: `run_probes("composition", "people", "checkpoints=[512-base]")`.

    Args:
        words: names of probes, or `all`; and settings as on the command line.

    Raises:
        InputError: something given is wrong, or nothing could be measured.
        Stopped: a signal came; the same call goes on.
    """
    names = registry.chosen([word for word in words if "=" not in word])
    return measure(names, *probing.from_overrides(*(word for word in words if "=" in word)))


def measure(names: Sequence[str], config: ProbeConfig, definitions: list[CheckpointConfig]) -> ProbeRun:
    """Measure probes of checkpoints, or read what was measured, and write the tables.

    Raises:
        InputError: something given is wrong, or nothing could be measured.
        Stopped: a signal came; what was finished is kept.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    set_precision(dtype)
    if device.type == "cpu":
        keep_freed_memory()
    engines.require(config.engine)
    dataset = whole_dataset(config)
    out = Path(config.out or default_folder(config, definitions))
    joining.refuse_foreign(out)
    weights = {definition.name: find_weights(definition) for definition in definitions}
    joining.refuse_other_weights(out, definitions, weights)
    run = ProbeRun(out, list(names), [], config.blur)
    meter = EnergyMeter(config.energy.country)
    with store_held(RunFolder(out)), Interrupt() as interrupt, room():
        drawn, silent = out / "probes" / "drawn", Progress(0, quiet=True)
        studio = Studio(drawn, config, weights, dataset, device, dtype, meter, silent, interrupt)
        shelf = Shelf(config, dataset, studio, device)
        total, done = _expected(run.names, shelf, definitions)
        with Progress(total, done_images=done, quiet=not config.progress) as studio.progress:
            for definition in definitions:
                _checkpoint(run, shelf, definition)
        run.measured = records.read(out)
        run.differences = joining.differences(out, run.measured)
        if not run.answered:
            raise InputError("; ".join(dict.fromkeys(run.left_out)))
        written.write(run)
        if autoencoder.PROBE.name in names and (out / "results.csv").exists():
            report.write_tables(out)  # its figure shows the floor
    return run


def whole_dataset(config: ProbeConfig) -> Dataset:
    """Return the data set with all its captions, in the order of the draw.

    Raises:
        InputError: see `load_dataset`.
    """
    everything = PromptsConfig(n="auto", seed=config.captions_seed, first=2, most=None)
    return load_dataset(config.data, everything, [])


def default_folder(config: ProbeConfig, definitions: Sequence[CheckpointConfig]) -> Path:
    """Return the folder of equal settings, whatever the probes."""
    fields = of_probes(identity_fields(config)) | {one.name: identity_fields(one) for one in definitions}
    return Path(f"outputs/probes-{config.family}-{digest(fields)[:8]}")


def _expected(names: Sequence[str], shelf: Shelf, definitions: Sequence[CheckpointConfig]) -> tuple[int, int]:
    """Return how many pictures the prompts of the probes ask for, and how many of them are there.

    A probe that cannot tell its prompts says so when its turn comes.
    """
    studio, there = shelf.studio, 0
    keys: dict[float, set[Key]] = {}
    for name in names:
        bench = Workbench(name, shelf)
        with suppress(InputError):
            found = registry.find(name).prompts(bench).prompts
            keys.setdefault(bench.guidance_scale, set()).update((one.key, one.text) for one in found)
    for definition in definitions:
        if definition.conditioning == "text":
            for scale, asked in keys.items():
                studio.announced |= {(definition.name, scale, key) for key in asked}
                there += len(asked & studio.pictures(definition, scale).keys())
    return len(studio.announced), there


def _checkpoint(run: ProbeRun, shelf: Shelf, definition: CheckpointConfig) -> None:
    """Measure all probes of a checkpoint; one that cannot be gives a line, and the others go on."""
    for name in run.names:
        probe, bench = registry.find(name), Workbench(name, shelf)
        try:
            _probe(run, probe, bench, definition)
        except InputError as error:
            line = f"{name}, {definition.name}: {error}"
            run.left_out.append(line)
            shelf.studio.progress.print(f"left out: {line}")


def _probe(run: ProbeRun, probe: Probe, bench: Workbench, definition: CheckpointConfig) -> None:
    bench.progress("reading the prompts")
    prompts = probe.prompts(bench)
    fields = identity(probe, prompts, bench, definition)
    known = {one.stem: one for one in records.read(run.path)}
    whole = digest(fields)
    scale = bench.guidance_scale if probe.draws else None
    stem = records.stem(probe.name, definition.name, scale)
    if stem in known and known[stem].identity == whole and not known[stem].lacking:
        run.answered.add(stem)
        return
    studio, before = bench.shelf.studio, len(bench.shelf.studio.meter.readings)
    studio.progress.print(f"{probe.name}, {definition.name}: measuring")
    with studio.counted(f"probe {probe.name}"):
        answer = probe.measure(bench, definition)
    bench.progress("writing")
    spent = [one for one in studio.meter.readings[before:] if one.stage == f"probe {probe.name}"]
    measured = Measured(
        schema_version=records.SCHEMA_VERSION,
        identity=whole,
        fields=fields,
        probe=probe.name,
        checkpoint=definition.name,
        guidance_scale=scale,
        protocol=protocol_name(bench),
        rows=[records.row_fields(row) for row in answer.rows],
        sentences=list(answer.sentences),
        prompts=_told(prompts),
        digests=dict(sorted(bench.used.items())),
        lacking=sorted(bench.lacking),
        energy=[asdict(one) for one in spent],
        versions=provenance.versions(bench.protocol),
        machine=provenance.machine(device_name(bench.device)),
        git=provenance.git_state(),
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    _keep_sheet(run.path, measured, answer)
    records.write(run.path, measured)
    run.answered.add(stem)


def _told(prompts: PromptSet) -> dict[str, Any]:
    keys = ("name", "source", "licence", "digest")
    return {key: getattr(prompts, key) for key in keys} | {"n": len(prompts.prompts)}


def _keep_sheet(out: Path, measured: Measured, answer: Answer) -> None:
    """Write this checkpoint's part of the contact sheet, blurred too if it may offend."""
    title = f"{measured.probe}, {measured.who}"
    for blurred in (False, True):
        file = records.sheet(out, measured.stem, blurred=blurred)
        file.unlink(missing_ok=True)
        if answer.tiles and (answer.blurred or not blurred):
            file.parent.mkdir(parents=True, exist_ok=True)
            images.write_png(file, contact.section(title, answer.tiles, blurred=blurred))
