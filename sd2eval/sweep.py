"""The sweep: every checkpoint at every guidance scale, shard by shard, then the scores.

Expensive things happen once: a checkpoint is loaded once for all its cells, a caption's scales share what
does not depend on the scale, the reference is read once per machine. What is published is never done again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sd2eval import checkpoints, evaluate, images, precision, provenance, report, shard
from sd2eval.checkpoints import Checkpoint, Weights, find_weights
from sd2eval.config import (
    CheckpointConfig,
    SweepConfig,
    digest,
    from_overrides,
)
from sd2eval.dataset import Dataset, load_dataset
from sd2eval.devices import device_name, keep_freed_memory, resolve_device, resolve_dtype, set_precision
from sd2eval.energy import EnergyMeter
from sd2eval.identity import (
    check_reference,
    input_digests,
    reference_name,
    refuse_other,
    run_identity,
    same_files,
)
from sd2eval.interrupt import Interrupt
from sd2eval.networks import Networks, fetch_weights, load_networks
from sd2eval.plan import Block, remaining
from sd2eval.progress import Progress
from sd2eval.records import SCHEMA_VERSION, EnergyReading, Prompt, RunInfo
from sd2eval.reference import reference_features
from sd2eval.shard_arrays import shard_arrays
from sd2eval.sheet import contact_sheet
from sd2eval.store import RunFolder
from sd2eval.tentative import held

SHEET_CAPTIONS = 8
"""Rows of a checkpoint's contact sheet."""

BATCH_SIZE = 32
"""Trajectories per UNet call unless `batch_size` says otherwise."""

STATUS = {"setup": "loading the extractors", "reference": "reading the reference images", "load": "loading"}


@dataclass
class Job:
    """What one process works with: the config's decisions, resolved."""

    config: SweepConfig
    definitions: list[CheckpointConfig]
    weights: dict[str, Weights]
    """Each checkpoint's files and their digest, by its name."""
    dataset: Dataset
    store: RunFolder
    device: torch.device
    dtype: str
    meter: EnergyMeter
    progress: Progress
    interrupt: Interrupt
    session: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}")
    readings: list[tuple[str, EnergyReading]] = field(default_factory=list)

    @contextmanager
    def spend(self, stage: str, checkpoint: str = "") -> Iterator[None]:
        """Measure a stage that belongs to no shard, and keep the reading on disk at once."""
        self.interrupt.check()
        self.progress.status(STATUS.get(stage, stage))
        with self.meter.task(stage):
            yield
        self.progress.status("")
        self.show_energy()
        self.readings.append((checkpoint, self.meter.readings[-1]))
        self.store.write_session(self.session, self.readings, self.meter.grid, self.meter.note)

    def show_energy(self) -> None:
        """Tell the display what was spent so far by this process."""
        self.progress.energy(self.meter.total_kwh, self.meter.total_kg_co2, self.meter.method)


def run_sweep(*overrides: str) -> report.Run:
    """Run a sweep from Python: `run_sweep("experiment=smoke", "prompts.n=8")`.

    Args:
        overrides: as on the command line.

    Raises:
        InputError: something given is wrong.
        Stopped: a signal came; the same call goes on.
    """
    return sweep(*from_overrides(*overrides))


def sweep(config: SweepConfig, definitions: list[CheckpointConfig]) -> report.Run:
    """Run or continue a sweep and return its run.

    Raises:
        InputError: something given is wrong, or the folder holds another run.
        Stopped: a signal came; what was published is kept.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    set_precision(dtype)
    if device.type == "cpu":
        keep_freed_memory()
    dataset = load_dataset(config.data, config.prompts, definitions)
    check_reference(dataset, config.protocol)
    precision.require(config, definitions)
    fields = run_identity(config, definitions, dtype) | {"data.captions_sha256": dataset.captions_digest}
    store = RunFolder(Path(config.out or f"outputs/{config.protocol.name}-{digest(fields)[:8]}"))
    store.refuse_foreign()
    if store.exists and store.begun:
        refuse_other(store.read_info(), fields)
        if finished(store) and same_files(store.read_info(), config, definitions):
            return report.load_run(store.path)
    # Weights are fetched and recognised before anything begins, with a display of their own.
    weights = {definition.name: find_weights(definition) for definition in definitions}
    fetch_weights(config.protocol, definitions, progress=config.progress)
    meter = EnergyMeter(config.energy.country)
    with held(store), Interrupt() as interrupt:
        store.clean()
        # At least the first look; `_checkpoint` adds what more is drawn.
        first = (
            min(config.prompts.first, len(dataset.prompts)) if config.prompts.auto else len(dataset.prompts)
        )
        total = first * len(config.guidance_scales) * len(definitions)
        done = sum(_images_done(store, definition.name) for definition in definitions)
        with Progress(max(total, done), done_images=done, quiet=not config.progress) as progress:
            job = Job(config, definitions, weights, dataset, store, device, dtype, meter, progress, interrupt)
            _run(job, fields)
    return report.load_run(store.path)


def _run(job: Job, fields: dict[str, Any]) -> None:
    with job.spend("setup"):
        networks = load_networks(job.config.protocol, job.definitions, job.device)
        digests = input_digests(job.weights, job.dataset, job.config.protocol, networks)
        _begin(job, fields, digests)
    with job.spend("reference"):
        _reference(job, networks, digests)
    for definition in job.definitions:
        _checkpoint(job, definition, networks)
    with job.spend("metrics"):
        measured = evaluate.measure(job.store, job.store.read_info())
    report.write_report(job.store.path, measured)


def _begin(job: Job, fields: dict[str, Any], digests: dict[str, str]) -> None:
    """Record what is run, or make sure that it is what was begun here."""
    whole = fields | {f"digests.{name}": value for name, value in digests.items()}
    if job.store.exists:
        info = job.store.read_info()
        if job.store.begun:
            refuse_other(info, whole)
        if job.store.begun or info.identity == digest(whole):
            return
        job.store.restart()
    definitions = {definition.name: asdict(definition) for definition in job.definitions}
    info = RunInfo(
        schema_version=SCHEMA_VERSION,
        identity=digest(whole),
        identity_fields=whole,
        config=asdict(job.config) | {"dtype": job.dtype, "checkpoint_definitions": definitions},
        digests=digests,
        reference_n=len(job.dataset.reference),
        git=provenance.git_state(),
        versions=provenance.versions(job.config.protocol),
        machine=provenance.machine(device_name(job.device)),
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    job.store.write_prompts(job.dataset.prompts)
    job.store.write_info(info)


def _reference(job: Job, networks: Networks, digests: dict[str, str]) -> None:
    if job.store.has("reference.npz"):
        return
    wanted = {
        slot: (extractor, digests[reference_name(slot)])
        for slot, extractor in networks.against("reference").items()
    }
    features = reference_features(
        job.dataset.reference, job.config.protocol, wanted, lambda _: job.interrupt.check()
    )
    arrays = {f"reference.{slot}": array for slot, array in features.items()}
    captions = [prompt.text for prompt in job.dataset.prompts]
    for slot, extractor in networks.against("texts").items():
        assert extractor.texts is not None
        arrays[f"texts.{slot}"] = extractor.texts(captions)
    job.store.write_arrays("reference", arrays)


def _images_done(store: RunFolder, checkpoint: str) -> int:
    return sum(len(store.read_manifest(checkpoint, block)["images"]) for block in store.blocks(checkpoint))


def _checkpoint(job: Job, definition: CheckpointConfig, networks: Networks) -> None:
    """Draw a checkpoint look by look, at the scales that are not finished; a fixed number is one look."""
    name, info = definition.name, job.store.read_info()
    rule = evaluate.finish(job.store, info, name)
    scales = job.config.guidance_scales
    checkpoint: Checkpoint | None = None
    for look in rule.schedule:
        blocks = remaining(look, job.store.blocks(name), job.config.shard_size)
        todo = sum(map(len, blocks))
        if blocks:
            if look != rule.schedule[0]:
                job.progress.more(todo * len(scales))
            job.progress.checkpoint(name, look, look - todo)
            checkpoint = checkpoint or _load(job, definition)
        for block in blocks:
            assert checkpoint is not None
            _shard(job, checkpoint, block, networks, scales)
        if look == rule.schedule[-1]:
            return
        with job.spend("metrics"):
            going = evaluate.open_scales(job.store, info, name, look)
        if not going:
            return
        if blocks:
            job.progress.print(rule.outlook(name, look, going))
        scales = list(going)


def _load(job: Job, definition: CheckpointConfig) -> Checkpoint:
    with job.spend("load", definition.name):
        files, dtype = job.weights[definition.name].sources, getattr(torch, job.dtype)
        checkpoint = checkpoints.load(definition, job.device, dtype, files)
        checkpoints.check_prediction(checkpoint)
    return checkpoint


def _shard(
    job: Job, checkpoint: Checkpoint, block: Block, networks: Networks, scales: Sequence[float]
) -> None:
    config = job.config
    prompts = job.dataset.prompts[block.first : block.last + 1]
    before = len(job.meter.readings)
    with job.meter.task("sample"):
        rows = min(config.batch_size or BATCH_SIZE, len(prompts) * len(scales))
        settings = shard.Settings(scales, config.sampler, config.seed, rows)
        given = shard.given(checkpoint, job.dataset, prompts, config.seed)
        latents, truncated = shard.sample_latents(
            checkpoint, given.conditioning, prompts, settings, job.progress.advance, job.interrupt.check
        )
    with job.meter.task("decode"):
        pixels = shard.decode(checkpoint, latents, config.protocol)
    job.interrupt.check()
    with job.meter.task("features"):
        arrays = shard_arrays(checkpoint, given, prompts, pixels, networks, config)
    with job.meter.task("write"):
        _keep_images(job, checkpoint.definition.name, block, prompts, pixels, scales)
        records = shard.records(prompts, scales, pixels, truncated)
    job.progress.advance(0, len(block))
    job.show_energy()
    energy = job.meter.readings[before:]
    job.store.publish(checkpoint.definition.name, block, arrays, records, energy, scales, config.images)


def _keep_images(
    job: Job,
    name: str,
    block: Block,
    prompts: Sequence[Prompt],
    pixels: shard.Pixels,
    scales: Sequence[float],
) -> None:
    if job.config.images == "all":
        shard.write_images(job.store, name, prompts, scales, pixels)
    if job.config.images != "none" and block.first == 0:
        path = job.store.sheet(name)
        path.parent.mkdir(exist_ok=True)
        texts = [prompt.text for prompt in prompts[:SHEET_CAPTIONS]]
        images.write_png(path, contact_sheet(pixels.images[: len(texts)], texts, scales, name))


def finished(store: RunFolder) -> bool:
    """Whether every cell is scored; then nothing is left to do."""
    if not store.has("results.csv"):
        return False
    info = store.read_info()
    scales = len(info.config["guidance_scales"])
    expected = sum(
        scales * len(evaluate.planned_metrics(info, name)) for name in evaluate.checkpoint_names(info)
    )
    return len(report.load_run(store.path).results) == expected
