"""One worker: from a task, a block of captions of one checkpoint, to its published shard."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import torch

from sd2eval import checkpoints, images, shard
from sd2eval.checkpoints import Checkpoint, Weights
from sd2eval.checkpoints.conditioning import network_batch
from sd2eval.config import CheckpointConfig, SweepConfig
from sd2eval.dataset import Dataset
from sd2eval.device_faults import device_fault, of_the_machine
from sd2eval.devices import device_name
from sd2eval.errors import InputError, Stopped, room
from sd2eval.memory import in_smaller_batches
from sd2eval.networks import Networks
from sd2eval.plan import Block
from sd2eval.records import Prompt
from sd2eval.session import Session
from sd2eval.shard_arrays import shard_arrays
from sd2eval.sheet import contact_sheet

SHEET_CAPTIONS = 8
"""Rows of a checkpoint's contact sheet."""
BATCH_SIZE = 32
"""Trajectories per UNet call unless `batch_size` says otherwise."""

Result = TypeVar("Result")

Fence: TypeAlias = Callable[[], None]
"""Raises `Stopped` when this process may not publish any more."""


class ShardFailed(Exception):  # noqa: N818 - says what happened
    """A shard could not be made; others may."""


class DeviceLost(ShardFailed):
    """A shard could not be made because of the accelerator: this process makes no other one."""

    gone = False
    """Whether a new process would not find the device well either."""


class Unloadable(ShardFailed):
    """A shard could not be made because its checkpoint does not load here, as often as that was tried."""


def device_lost(session: Session, place: str, error: Exception, doing: str = "") -> DeviceLost | None:
    """Return what an error means where the device is to blame, and say it; None where it is not."""
    fault = device_fault(error)
    if not fault:
        return None
    where, reason = f"{place} on {socket.gethostname()}", _reason(error)
    session.note(f"{where} failed ({reason})", "device_lost", device=place, fault=fault)
    lost = DeviceLost(f"{doing}{where}: {reason}")
    lost.gone = fault == "gone"
    return lost


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@contextmanager
def on_device(session: Session, device: torch.device) -> Iterator[None]:
    """Say of a device that the networks of the metrics do not load onto it, or do not work there.

    Raises:
        DeviceLost: in place of an error of the device.
        MemoryError: in place of whatever came from too little memory, such as a file that was "unreadable".
    """
    try:
        yield
    except Exception as error:
        if not of_the_machine(error):
            raise
        lost = device_lost(session, str(device), error)
        raise lost or MemoryError(f"{device} on {socket.gethostname()}: {_reason(error)}") from error


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """A shard to make."""

    checkpoint: str
    block: Block
    scales: tuple[float, ...]

    @property
    def key(self) -> str:
        """Name for messages and files, such as `512-base/000000-000031`."""
        return f"{self.checkpoint}/{self.block.key}"


@dataclass
class Worker:
    """A process that makes shards; the checkpoint of the last one stays loaded."""

    config: SweepConfig
    definitions: dict[str, CheckpointConfig]
    weights: dict[str, Weights]
    """Each checkpoint's files and their digest, by its name."""
    dataset: Dataset
    networks: Networks
    device: torch.device
    dtype: str
    session: Session
    fence: Fence = lambda: None
    _loaded: dict[str, Checkpoint] = field(default_factory=dict)
    _unloaded: dict[str, list[str]] = field(default_factory=dict)
    """Why each checkpoint did not load, as often as that failed in a row."""
    _enough: dict[str, int] = field(default_factory=dict)
    """What memory was enough for, by what it is, when it once was not."""
    _shown: int = 0
    """Images of the shard in the making, as far as the display counts them."""
    _place: str = field(init=False)
    """What it works on, asked while the device still answers."""

    def __post_init__(self) -> None:
        name = device_name(self.device)
        self._place = name if name == str(self.device) else f"{self.device} ({name})"

    def run(self, task: Task) -> None:
        """Make one shard and publish it.

        Raises:
            InputError: the checkpoint's files are not what they should be: no other shard will do.
            ShardFailed: this shard cannot be made; from the error. `DeviceLost`: nor any other one here;
                `Unloadable`: nor any other one of its checkpoint.
            Stopped: a signal came, the disk is full, or another driver has taken over.
        """
        checkpoint = self._ready(task)
        self.session.event("shard_begun", shard=task.key, images=len(task.block) * len(task.scales))
        begin = time.monotonic()
        try:
            with room():
                self._make(checkpoint, task)
        except Stopped:
            raise
        except Exception as error:
            self.session.display.advance(-self._shown)  # they are made again, or never
            raise self._failed(task, error) from error
        self.session.event("shard_published", shard=task.key, seconds=round(time.monotonic() - begin, 3))

    def _ready(self, task: Task) -> Checkpoint:
        """Return the loaded checkpoint of a task; what does not load is not tried for each shard anew."""
        reasons = self._unloaded.setdefault(task.checkpoint, [])
        if len(reasons) >= self.config.engine.tries:
            raise Unloadable(f"{task.key}: {reasons[-1]}")
        try:
            with room():
                checkpoint = self._checkpoint(task.checkpoint)
        except Stopped:
            raise
        except Exception as error:
            if isinstance(error, InputError) and not of_the_machine(error):
                raise
            reasons.append(_reason(error))
            failed = self._failed(task, error)
            if len(reasons) >= self.config.engine.tries and not isinstance(failed, DeviceLost):
                failed = Unloadable(str(failed))
            raise failed from error
        reasons.clear()
        return checkpoint

    def _failed(self, task: Task, error: Exception) -> ShardFailed:
        """Return what a failure means for the shard, and say it of the device where that is to blame."""
        lost = device_lost(self.session, self._place, error, f"{task.key}: ")
        return lost or ShardFailed(f"{task.key}: {_reason(error)}")

    def _checkpoint(self, name: str) -> Checkpoint:
        if name not in self._loaded:
            self._loaded.clear()  # its memory is needed
            with self.session.spend("load", name):
                files, dtype = self.weights[name].sources, getattr(torch, self.dtype)
                loaded = checkpoints.load(self.definitions[name], self.device, dtype, files)
                checkpoints.check_prediction(loaded)
            self._loaded[name] = loaded
            self.session.event("checkpoint_loaded", checkpoint=name, device=self._place, dtype=self.dtype)
        return self._loaded[name]

    def _make(self, checkpoint: Checkpoint, task: Task) -> None:
        config, meter, scales = self.config, self.session.meter, task.scales
        prompts = self.dataset.prompts[task.block.first : task.block.last + 1]
        before, self._shown, count = len(meter.readings), 0, len(prompts) * len(scales)
        with meter.task("sample"):
            given = shard.given(checkpoint, self.dataset, prompts, config.seed)
            latents, truncated = self._sample(checkpoint, given, prompts, scales)
        with meter.task("decode"):
            pixels = self._fit(
                "images per decoder call",
                min(network_batch(checkpoint.definition.resolution), count),
                lambda size: shard.decode(checkpoint, latents, config.protocol, size),
            )
        self.session.interrupt.check()
        with meter.task("features"):
            arrays = self._fit(
                "images per call of a metric's network",
                count,
                lambda size: shard_arrays(checkpoint, given, prompts, pixels, self.networks, config, size),
            )
        self.fence()
        with meter.task("write"):
            self._keep_images(task, prompts, pixels)
            records = shard.records(prompts, scales, pixels, truncated)
        self.session.show_energy()
        self.fence()
        energy = meter.readings[before:]
        self.session.store.publish(
            task.checkpoint, task.block, arrays, records, energy, scales, self.config.images
        )
        self.session.display.advance(0, len(task.block))

    def _sample(
        self, checkpoint: Checkpoint, given: shard.Given, prompts: Sequence[Prompt], scales: Sequence[float]
    ) -> tuple[torch.Tensor, list[bool]]:
        """Return latents and truncations."""
        config, display = self.config, self.session.display

        def advance(images: int) -> None:
            self._shown += images
            display.advance(images)

        def attempt(rows: int) -> tuple[torch.Tensor, list[bool]]:
            settings = shard.Settings(scales, config.sampler, config.seed, rows)
            check = self.session.interrupt.check
            return shard.sample_latents(checkpoint, given.conditioning, prompts, settings, advance, check)

        def forget() -> None:
            display.advance(-self._shown)  # they are made again
            self._shown = 0

        most = min(config.batch_size or BATCH_SIZE, len(prompts) * len(scales))
        return self._fit("trajectories per UNet call", most, attempt, forget)

    def _fit(
        self, what: str, most: int, work: Callable[[int], Result], again: Callable[[], None] = lambda: None
    ) -> Result:
        """Return what `work` gives with batches of `most`, or of what memory was enough for.

        Args:
            what: is counted, for the user.
            most: to begin with.
            work: does all of it with batches of a size.
            again: called before it is done again.
        """

        def smaller(rows: int) -> None:
            again()
            self.session.halved(rows, what)

        wanted = min(self._enough.get(what, most), most)
        result, rows = in_smaller_batches(work, wanted, smaller)
        if rows < wanted:
            self._enough[what] = rows
        return result

    def _keep_images(self, task: Task, prompts: Sequence[Prompt], pixels: shard.Pixels) -> None:
        store, keep = self.session.store, self.config.images
        if keep == "all":
            shard.write_images(store, task.checkpoint, prompts, task.scales, pixels)
        if keep != "none" and task.block.first == 0:
            path = store.sheet(task.checkpoint)
            path.parent.mkdir(exist_ok=True)
            texts = [prompt.text for prompt in prompts[:SHEET_CAPTIONS]]
            sheet = contact_sheet(pixels.images[: len(texts)], texts, task.scales, task.checkpoint)
            images.write_png(path, sheet)
