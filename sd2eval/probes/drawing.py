"""Prompts to images of a checkpoint, by the sweep's own worker, engines and store.

`DRAWN/<checkpoint>_g<scale>_<digest>/` holds everything that one checkpoint draws at one scale; the digest is
of all that moves a pixel except the prompts. In it is one run folder per set of prompts that was new when it
was drawn, under the digest of the set; the same text with the same key is never drawn twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sd2eval import engines, images, provenance
from sd2eval.checkpoints import Checkpoint, Weights
from sd2eval.config import CheckpointConfig, ProbeConfig, SweepConfig, digest, identity_fields
from sd2eval.config.probing import as_sweep
from sd2eval.dataset import Dataset
from sd2eval.devices import device_name
from sd2eval.energy import EnergyMeter
from sd2eval.engines import failed
from sd2eval.engines.base import Assignment, Attempts, Engine, take
from sd2eval.engines.local import InProcess
from sd2eval.errors import InputError, Unfinished, room
from sd2eval.interrupt import Interrupt
from sd2eval.networks import Networks
from sd2eval.plan import Cell, remaining
from sd2eval.probes.base import Drawn, ProbePrompt, Unavailable
from sd2eval.progress import Progress
from sd2eval.prompts import prompts_digest
from sd2eval.records import SCHEMA_VERSION, ImageRecord, Prompt, RunInfo
from sd2eval.session import Session
from sd2eval.store import RunFolder
from sd2eval.worker import Task, Worker

Key = tuple[int, str]
"""Of a picture: the prompt's key and its text."""


@dataclass(frozen=True)
class Picture:
    """Where a drawn picture lies, and what its manifest says of it."""

    file: Path
    record: dict[str, Any]


@dataclass
class Studio:
    """Draws for all probes of a call; the checkpoint of the last drawing stays loaded."""

    root: Path
    """Folder of all drawings."""
    config: ProbeConfig
    weights: dict[str, Weights]
    dataset: Dataset
    device: torch.device
    dtype: str
    meter: EnergyMeter
    progress: Progress
    interrupt: Interrupt
    loaded: dict[str, Checkpoint] = field(default_factory=dict)
    announced: set[tuple[str, float, Key]] = field(default_factory=set)
    """Pictures that the display expects."""
    _found: dict[str, dict[Key, Picture]] = field(default_factory=dict)
    _stage: str = ""
    _task: Any = None

    @contextmanager
    def counted(self, stage: str) -> Iterator[None]:
        """Count the energy of the body as `stage`, except that of what is drawn in it."""
        self._stage, self._task = stage, self.meter.task(stage)
        self._task.__enter__()
        try:
            yield
        finally:
            self._task.__exit__(None, None, None)
            self._stage = ""

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Close what is being counted for a while: tasks do not nest, and shards count their own."""
        if not self._stage:
            yield
            return
        self._task.__exit__(None, None, None)
        try:
            yield
        finally:
            self._task = self.meter.task(self._stage)
            self._task.__enter__()

    def draw(self, definition: CheckpointConfig, prompts: Sequence[ProbePrompt], scale: float) -> Drawn:
        """Return one image per prompt; those that are not there yet are drawn first.

        Raises:
            Unavailable: the checkpoint starts from an image.
            InputError: two prompts have the same key, or a picture was changed on disk.
            Stopped: a signal came; what was finished is kept.
            Unfinished: some shards failed again and again.
        """
        _check(definition, prompts)
        have = self.pictures(definition, scale)
        new = [prompt for prompt in prompts if (prompt.key, prompt.text) not in have]
        if new:
            with self._uncounted():
                self._draw(definition, new, scale)
            have = self.pictures(definition, scale)
        return _read([have[prompt.key, prompt.text] for prompt in prompts], self.config.protocol.resolution)

    def pictures(self, definition: CheckpointConfig, scale: float) -> dict[Key, Picture]:
        """Return what was drawn already, from the run folders that are complete."""
        folder = self.folder(definition, scale)
        if folder.name not in self._found:
            self._found[folder.name] = _pictures(folder, Cell(definition.name, scale))
        return self._found[folder.name]

    def folder(self, definition: CheckpointConfig, scale: float) -> Path:
        """Return the folder of a checkpoint's drawings at a scale."""
        fields = pixel_fields(self.config, definition, scale, self.dtype)
        total = digest(fields | {"weights": self.weights[definition.name].digest})
        return self.root / f"{Cell(definition.name, scale).key}_{total[:12]}"

    def _draw(self, definition: CheckpointConfig, new: Sequence[ProbePrompt], scale: float) -> None:
        prompts = [_prompt(one) for one in new]
        folder = self.folder(definition, scale)
        store = RunFolder(folder / prompts_digest(prompts)[:16])
        sweep = replace(as_sweep(self.config, scale), checkpoints=[definition.name])
        dataset = Dataset(prompts, prompts_digest(prompts), self.dataset.image_folder, [])
        with store_held(store), room():
            self._begin(store, sweep, definition, dataset)
            self._expect(definition, new, scale, store)
            session = Session(self.meter, store, self.progress, self.interrupt)
            with self._engine(sweep, definition, dataset, session) as engine:
                blocks = remaining(len(prompts), store.blocks(definition.name), sweep.shard_size)
                tasks = [Task(definition.name, block, (scale,)) for block in blocks]
                failures = engine.run(tasks)
        self._found.pop(folder.name, None)
        if failures:
            for failure in failures:
                failed.write(store, failure)
            raise Unfinished(failed.sentence(store, failures))

    def _begin(
        self, store: RunFolder, sweep: SweepConfig, definition: CheckpointConfig, dataset: Dataset
    ) -> None:
        """Record what is drawn; its folder's name already says that it is what was begun there."""
        store.clean()
        failed.clear(store)
        if store.exists:
            return
        scale = sweep.guidance_scales[0]
        fields = pixel_fields(self.config, definition, scale, self.dtype)
        digests = {
            f"weights/{definition.name}": self.weights[definition.name].digest,
            "data/captions": dataset.captions_digest,
            "protocol": digest(identity_fields(sweep.protocol)),
        }
        whole = fields | {f"digests.{name}": value for name, value in digests.items()}
        definitions = {definition.name: asdict(definition)}
        info = RunInfo(
            schema_version=SCHEMA_VERSION,
            identity=digest(whole),
            identity_fields=whole,
            config=asdict(sweep) | {"dtype": self.dtype, "checkpoint_definitions": definitions},
            digests=digests,
            git=provenance.git_state(),
            versions=provenance.versions(sweep.protocol),
            machine=provenance.machine(device_name(self.device)),
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        store.write_prompts(dataset.prompts)
        store.write_info(info)

    def _expect(
        self, definition: CheckpointConfig, new: Sequence[ProbePrompt], scale: float, store: RunFolder
    ) -> None:
        """Let the display count what is drawn, also what nobody announced."""
        pictures = {(definition.name, scale, (prompt.key, prompt.text)) for prompt in new}
        self.progress.more(len(pictures - self.announced))
        self.announced |= pictures
        done = sum(map(len, store.blocks(definition.name)))
        self.progress.checkpoint(definition.name, len(new), done)
        self.progress.advance(done)

    @contextmanager
    def _engine(
        self, sweep: SweepConfig, definition: CheckpointConfig, dataset: Dataset, session: Session
    ) -> Iterator[Engine]:
        """Give the engine of the config; one process keeps its checkpoint for the next drawing."""
        networks = Networks({}, [])
        parts: dict[str, Any] = {
            "config": sweep,
            "definitions": {definition.name: definition},
            "weights": self.weights,
            "dataset": dataset,
            "device": self.device,
            "dtype": self.dtype,
        }
        if sweep.engine.name == "local" and sweep.engine.workers == 1:
            worker = Worker(**parts, networks=networks, session=session, _loaded=self.loaded)
            yield InProcess(worker, Attempts(sweep.engine.tries, self.progress.print))
            return
        self.loaded.clear()  # the workers have their own
        token = take(session.store)
        assignment = Assignment(**parts, path=session.store.path.absolute(), digests={}, token=token)
        with engines.opened(sweep.engine, assignment, networks, session, self.progress) as engine:
            yield engine


@contextmanager
def store_held(store: RunFolder) -> Iterator[None]:
    """Make a run folder and hold it for one writer."""
    with store.lock("probe"):
        yield


def pixel_fields(
    config: ProbeConfig, definition: CheckpointConfig, scale: float, dtype: str
) -> dict[str, Any]:
    """Return the settings that move a pixel of a drawn image, by dotted key; the prompts come on top."""
    geometry = ("resolution", "resize", "fit", "quantize", "sample_at")
    return {
        **identity_fields(definition, "checkpoint."),
        **identity_fields(config.sampler, "sampler."),
        **{f"protocol.{key}": getattr(config.protocol, key) for key in geometry},
        "guidance_scale": scale,
        "seed": config.seed,
        "dtype": dtype,
    }


def _check(definition: CheckpointConfig, prompts: Sequence[ProbePrompt]) -> None:
    if definition.conditioning != "text":
        raise Unavailable(
            f"'{definition.name}' starts from an image ({definition.conditioning}); "
            "this probe draws from text alone"
        )
    if not prompts:
        raise InputError("there is nothing to draw: no prompts")
    keys = [prompt.key for prompt in prompts]
    if len(set(keys)) < len(keys):
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise InputError(f"prompt {twice}: the key is there twice; it names the picture and seeds its noise")


def _prompt(one: ProbePrompt) -> Prompt:
    return Prompt(caption_id=one.key, image_id=one.group, image_file=one.image_file or "none", text=one.text)


def _pictures(folder: Path, cell: Cell) -> dict[Key, Picture]:
    found: dict[Key, Picture] = {}
    for file in sorted(folder.glob("*/run.json")):
        store = RunFolder(file.parent)
        prompts = store.read_prompts()
        blocks = store.blocks(cell.checkpoint)
        if sum(map(len, blocks)) < len(prompts):
            continue
        records = itertools.chain.from_iterable(
            store.read_manifest(cell.checkpoint, block)["images"] for block in blocks
        )
        for prompt, record in zip(prompts, records, strict=True):
            path = store.image_folder(cell) / f"{prompt['caption_id']}.png"
            found[prompt["caption_id"], prompt["text"]] = Picture(path, record)
    return found


def _read(pictures: Sequence[Picture], resolution: int) -> Drawn:
    records = [ImageRecord(**picture.record) for picture in pictures]
    valid = np.array([not record.invalid for record in records])
    found: list[images.Pixels] = []
    for picture, record in zip(pictures, records, strict=True):
        if record.invalid:
            found.append(np.zeros((resolution, resolution, 3), np.uint8))
            continue
        found.append(images.load_rgb(picture.file))
        if images.digest(found[-1]) != record.sha256:
            raise InputError(
                f"{picture.file}: is not the picture that was drawn; "
                f"`python -m sd2eval verify {picture.file.parents[2]} --repair` makes it again"
            )
    return Drawn(np.stack(found), valid, np.array([record.truncated for record in records]))
