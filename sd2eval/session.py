"""What one process spends: its energy, written down as it goes, and shown."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from sd2eval.energy import EnergyMeter
from sd2eval.interrupt import Interrupt
from sd2eval.records import EnergyReading
from sd2eval.store import RunFolder

STATUS = {"setup": "loading the extractors", "reference": "reading the reference images", "load": "loading"}


class Display(Protocol):
    """What a process tells of its work: `Progress`, or its relay in a worker."""

    def advance(self, images: int, captions: int = 0) -> None:
        """Count finished images and captions."""

    def status(self, text: str) -> None:
        """Say what is being done besides sampling."""

    def print(self, message: str) -> None:
        """Print a line of its own."""

    def energy(self, kwh: float, kg_co2: float, method: str) -> None:
        """Show the energy so far."""


@dataclass
class Session:
    """The energy of one process, its display, and the wish to stop it."""

    meter: EnergyMeter
    store: RunFolder
    display: Display
    interrupt: Interrupt
    name: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}")
    readings: list[tuple[str, EnergyReading]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader of the run should know about this process."""

    @contextmanager
    def spend(self, stage: str, checkpoint: str = "") -> Iterator[None]:
        """Measure a stage that belongs to no shard, and keep the reading on disk at once."""
        self.interrupt.check()
        self.display.status(STATUS.get(stage, stage))
        with self.meter.task(stage):
            yield
        self.display.status("")
        self.show_energy()
        self.readings.append((checkpoint, self.meter.readings[-1]))
        self._write()

    def note(self, text: str) -> None:
        """Record something, and say it."""
        self.notes.append(text)
        self.display.print(text)
        self._write()

    def _write(self) -> None:
        note = "; ".join([*filter(None, [self.meter.note]), *self.notes])
        self.store.write_session(self.name, self.readings, self.meter.grid, note)

    def show_energy(self) -> None:
        """Tell the display what was spent so far by this process."""
        self.display.energy(self.meter.total_kwh, self.meter.total_kg_co2, self.meter.method)
