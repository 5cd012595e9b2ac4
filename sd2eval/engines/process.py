"""A worker process of `engine=local`: it makes what its driver sends, and ends with it.

Started as `python -m sd2eval.engines.process N`; N is its end of a socket pair, stdin has what it is told of
the run.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from sd2eval.devices import device_name
from sd2eval.engines.base import Assignment, device_of, enlist
from sd2eval.errors import EXIT_RESUMABLE, InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.worker import DeviceLost, ShardFailed, Task, Unloadable


@dataclass(frozen=True)
class Place:
    """A worker among those of its machine."""

    assignment: Assignment
    index: int
    count: int
    """Of the workers while it starts; each task comes with their number then."""


class Relay:
    """A display that passes everything on to the driver's."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def advance(self, images: int, captions: int = 0) -> None:
        """Pass on."""
        self._pipe.send(("advance", images, captions))

    def print(self, message: str) -> None:
        """Pass on."""
        self._pipe.send(("print", message))

    def status(self, text: str) -> None:
        """Keep quiet: several workers do several things."""

    def energy(self, kwh: float, kg_co2: float, method: str) -> None:
        """Pass on; the driver adds up what its workers spent."""
        self._pipe.send(("energy", kwh, kg_co2, method))


def main(descriptor: int) -> None:
    """Work until the driver closes its end, or dies: then this process ends at once, whatever it is doing."""
    pipe = Connection(descriptor)
    place: Place = pickle.load(sys.stdin.buffer)
    tasks: queue.SimpleQueue[tuple[Task, int]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, tasks), daemon=True).start()
    try:
        _serve(pipe, place, tasks)
    except InputError as error:
        pipe.send(("refused", str(error)))
    except Stopped as error:
        pipe.send(("stopped", str(error)))


def _receive(pipe: Connection, tasks: queue.SimpleQueue[tuple[Task, int]]) -> None:
    """Fill the queue; end the process with the driver, for whom a half-made shard is none."""
    while True:
        try:
            tasks.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(EXIT_RESUMABLE)


def _serve(pipe: Connection, place: Place, tasks: queue.SimpleQueue[tuple[Task, int]]) -> None:
    device, threads = device_of(place.assignment.config.device, place.index), torch.get_num_threads()
    _share_cores(device, threads, place.count)
    try:
        worker = enlist(place.assignment, device, Relay(pipe), Interrupt(), 1 / place.count)
    except DeviceLost as error:
        pipe.send(("lost", str(error), error.gone))
        raise
    pipe.send(("ready", device_name(device)))
    while True:
        task, count = tasks.get()
        _share_cores(device, threads, count)
        worker.session.meter.share = 1 / count
        try:
            worker.run(task)
            pipe.send(("done",))
        except DeviceLost as error:
            pipe.send(("lost", str(error), error.gone))
            raise  # its successor may find the device well
        except ShardFailed as error:
            pipe.send(("failed", str(error), isinstance(error, Unloadable)))


def _share_cores(device: torch.device, threads: int, count: int) -> None:
    if device.type == "cpu":
        torch.set_num_threads(max(1, threads // count))


if __name__ == "__main__":
    main(int(sys.argv[1]))
