"""The sweep: every checkpoint at every guidance scale, shard by shard, then the scores.

Expensive things happen once: a checkpoint is loaded once for all its cells, a caption's scales share what
does not depend on the scale, the reference is read once per machine. What is published is never done again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sd2eval import __version__, engines, evaluate, precision, provenance, report, run_tables
from sd2eval.checkpoints import Weights, find_weights
from sd2eval.config import CheckpointConfig, SweepConfig, digest, from_overrides
from sd2eval.dataset import Dataset, load_dataset
from sd2eval.devices import device_name, keep_freed_memory, resolve_device, resolve_dtype, set_precision
from sd2eval.energy import EnergyMeter
from sd2eval.engines import failed
from sd2eval.engines.base import Assignment, Engine, Failure, take
from sd2eval.errors import Stopped, Unfinished, room, writing
from sd2eval.footprint import shortage
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
from sd2eval.plan import remaining
from sd2eval.progress import Progress
from sd2eval.records import SCHEMA_VERSION, RunInfo
from sd2eval.reference import reference_features
from sd2eval.run_tables import Run
from sd2eval.session import Session
from sd2eval.store import RunFolder
from sd2eval.tentative import held
from sd2eval.worker import DeviceLost, Task, on_device


@dataclass
class Job:
    """What a driver works with: the config's decisions, resolved."""

    config: SweepConfig
    definitions: list[CheckpointConfig]
    weights: dict[str, Weights]
    """Each checkpoint's files and their digest, by its name."""
    dataset: Dataset
    store: RunFolder
    device: torch.device
    dtype: str
    progress: Progress
    interrupt: Interrupt
    session: Session


def run_sweep(*overrides: str) -> Run:
    """Run a sweep from Python: `run_sweep("experiment=smoke", "prompts.n=8")`.

    Args:
        overrides: as on the command line.

    Raises:
        InputError: something given is wrong.
        Stopped: a signal came; the same call goes on.
    """
    return sweep(*from_overrides(*overrides))


@writing()
def sweep(config: SweepConfig, definitions: list[CheckpointConfig]) -> Run:
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
    engines.require(config.engine)
    fields = run_identity(config, definitions, dtype) | {"data.captions_sha256": dataset.captions_digest}
    store = RunFolder(Path(config.out or f"outputs/{config.protocol.name}-{digest(fields)[:8]}"))
    store.refuse_foreign()
    if store.exists and store.begun:
        refuse_other(store.read_info(), fields)
        whole = finished(store)
        if whole is not None and same_files(whole.info, config, definitions):
            return whole
    # Weights are fetched and recognised before anything begins, with a display of their own.
    begin = time.monotonic()
    weights = {definition.name: find_weights(definition) for definition in definitions}
    fetch_weights(config.protocol, definitions, progress=config.progress)
    ready = time.monotonic() - begin
    meter = EnergyMeter(config.energy.country)
    with held(store), Interrupt() as interrupt:
        store.clean()
        total, done = _images(config, definitions, dataset, store)
        with Progress(total, done_images=done, quiet=not config.progress) as progress:
            session = Session(meter, store, progress, interrupt)
            job = Job(
                config, definitions, weights, dataset, store, device, dtype, progress, interrupt, session
            )
            with _logged(job, total - done):
                found = {name: one.digest for name, one in weights.items()}
                session.event("weights_ready", seconds=round(ready, 3), digests=found)
                failures = _run(job, fields)
    if failures:
        raise Unfinished(failed.sentence(store, failures))
    return report.load_run(store.path)


@contextmanager
def _logged(job: Job, left: int) -> Iterator[None]:
    """Log the begin and the end of a run, and say it if the disk is too small for what is left to draw."""
    fields = {"version": __version__, "engine": job.config.engine.name, "workers": job.config.engine.workers}
    fields |= {"device": device_name(job.device), "dtype": job.dtype, "images_left": left}
    with job.session.logged("run_resumed" if job.store.begun else "run_begun", **fields), room():
        warning = shortage(job.config, left, job.store.path)
        if warning:
            job.session.note(warning)
        yield


def _images(
    config: SweepConfig, definitions: Sequence[CheckpointConfig], dataset: Dataset, store: RunFolder
) -> tuple[int, int]:
    """Return how many images there will be, `_tasks` adds what later looks draw, and how many there are."""
    captions = len(dataset.prompts)
    first = min(config.prompts.first, captions) if config.prompts.auto else captions
    done = sum(
        len(store.read_manifest(definition.name, block)["images"])
        for definition in definitions
        for block in store.blocks(definition.name)
    )
    return max(first * len(config.guidance_scales) * len(definitions), done), done


def _run(job: Job, fields: dict[str, Any]) -> list[Failure]:
    with job.session.spend("setup"):
        with _driving(job):
            networks = load_networks(job.config.protocol, job.definitions, job.device)
        digests = input_digests(job.weights, job.dataset, job.config.protocol, networks)
        _begin(job, fields, digests)
        run_tables.reopen(job.store)  # this session's energy is in no table yet
    with job.session.spend("reference"), _driving(job):
        _reference(job, networks, digests)
    failed.clear(job.store)
    with engines.opened(
        job.config.engine, _assignment(job, digests), networks, job.session, job.progress
    ) as engine:
        del networks  # the workers of other processes have their own
        failures = _draw(job, engine)
    failed.settle(job.store)
    with job.session.spend("metrics"):
        measured = evaluate.measure(job.store, job.store.read_info())
    report.write_tables(job.store.path, measured)
    return failures


@contextmanager
def _driving(job: Job) -> Iterator[None]:
    """Stop where the device on which the driver prepares everything fails, or has too little memory."""
    try:
        with on_device(job.session, job.device):
            yield
    except (DeviceLost, MemoryError) as error:
        raise Stopped(f"this process cannot go on: {error}") from error


def _assignment(job: Job, digests: dict[str, str]) -> Assignment:
    return Assignment(
        config=job.config,
        definitions={definition.name: definition for definition in job.definitions},
        weights=job.weights,
        dataset=job.dataset,
        path=job.store.path.absolute(),
        device=job.device,
        dtype=job.dtype,
        digests=digests,
        token=take(job.store),
    )


def _draw(job: Job, engine: Engine) -> list[Failure]:
    """Have every shard made, checkpoint by checkpoint or all at once, and return what was given up."""
    failures: list[Failure] = []
    rounds = [_tasks(job, definition, failures) for definition in job.definitions]
    if not engine.parallel:
        for tasks in itertools.chain.from_iterable(rounds):
            _note(job, failures, tasks, engine.run(tasks))
        return failures
    while rounds:
        waiting = [(one, next(one, None)) for one in rounds]
        rounds = [one for one, tasks in waiting if tasks is not None]
        together = [task for _, tasks in waiting for task in tasks or []]
        if together:  # nothing of it when the last look is over: the display goes on to say what was made
            _note(job, failures, together, engine.run(together))
    return failures


def _note(job: Job, failures: list[Failure], tasks: Sequence[Task], new: Sequence[Failure]) -> None:
    """Record what an engine gave up; a shard that it dropped silently must not look like a finished run."""
    for failure in new:
        failed.write(job.store, failure)
    failures += new
    made = {name: set(job.store.blocks(name)) for name in {task.checkpoint for task in tasks}}
    dropped = {task for task in tasks if task.block not in made[task.checkpoint]}
    dropped -= {failure.task for failure in failures}
    if dropped:
        raise Stopped(f"{min(dropped).key} was neither made nor given up by the engine")


def _tasks(job: Job, definition: CheckpointConfig, failures: Sequence[Failure]) -> Iterator[list[Task]]:
    """Yield a checkpoint's shards look by look, at the scales that go on; a fixed number is one look.

    What was yielded has been made, or is among the failures, when the next look is asked for.
    """
    name, info = definition.name, job.store.read_info()
    rule = evaluate.finish(job.store, info, name)
    scales = job.config.guidance_scales
    for look in rule.schedule:
        blocks = remaining(look, job.store.blocks(name), job.config.shard_size)
        todo = sum(map(len, blocks))
        if blocks:
            if look != rule.schedule[0]:
                job.progress.more(todo * len(scales))
            job.progress.checkpoint(name, look, look - todo)
            yield [Task(name, block, tuple(scales)) for block in blocks]
        if look == rule.schedule[-1] or any(failure.task.checkpoint == name for failure in failures):
            return
        with job.session.spend("metrics"):
            going = evaluate.open_scales(job.store, info, name, look)
        if not going:
            return
        if blocks:
            job.progress.print(rule.outlook(name, look, going))
        scales = list(going)


def _begin(job: Job, fields: dict[str, Any], digests: dict[str, str]) -> None:
    """Record what is run, or make sure that it is what was begun here."""
    whole = fields | {f"digests.{name}": value for name, value in digests.items()}
    if job.store.exists:
        info = job.store.read_info()
        if job.store.begun:
            refuse_other(info, whole)
        # Without prompts, a restart was killed: it removes them before it removes the record.
        if job.store.begun or (info.identity == digest(whole) and job.store.has("prompts.json")):
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
        evaluate.counterparts(job.store)  # if it is damaged, that is said before anything is drawn
        return
    wanted = {
        slot: (extractor, digests[reference_name(slot)])
        for slot, extractor in networks.against("reference").items()
    }

    def smaller(size: int) -> None:
        job.session.halved(size, "reference images per call of a metric's network")

    files, check = job.dataset.reference, job.interrupt.check
    features = reference_features(files, job.config.protocol, wanted, lambda _: check(), smaller)
    arrays = {f"reference.{slot}": array for slot, array in features.items()}
    captions = [prompt.text for prompt in job.dataset.prompts]
    for slot, extractor in networks.against("texts").items():
        assert extractor.texts is not None
        arrays[f"texts.{slot}"] = extractor.texts(captions)
    job.store.write_arrays("reference", arrays)


def finished(store: RunFolder) -> Run | None:
    """Return the run if every cell is scored and all tables were written to the end: nothing is to do."""
    run = report.read_run(store.path)
    if run is None:
        return None
    info = run.info
    scales = len(info.config["guidance_scales"])
    expected = sum(
        scales * len(evaluate.planned_metrics(info, name)) for name in evaluate.checkpoint_names(info)
    )
    return run if len(run.results) + len(run.unscored) == expected else None
