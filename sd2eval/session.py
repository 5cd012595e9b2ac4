"""What one process spends: its energy, written down as it goes, and shown."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from sd2eval import events
from sd2eval.energy import EnergyMeter
from sd2eval.errors import Stopped
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

    def __post_init__(self) -> None:
        self._events = events.EventLog(self.store.path / events.FILE, self.name, self._not_logged)

    def event(self, name: str, **fields: Any) -> None:
        """Log an event, see `events`."""
        self._events.write(name, **fields)

    @contextmanager
    def spend(self, stage: str, checkpoint: str = "") -> Iterator[None]:
        """Measure a stage that belongs to no shard, and keep the reading on disk at once."""
        self.interrupt.check()
        self.display.status(STATUS.get(stage, stage))
        with self.meter.task(stage):
            yield
        self.display.status("")
        self.show_energy()
        reading = self.meter.readings[-1]
        self.readings.append((checkpoint, reading))
        of = {"checkpoint": checkpoint} if checkpoint else {}
        self.event("stage_ended", stage=stage, **of, seconds=round(reading.seconds, 3), kwh=reading.kwh)
        self._write()

    @contextmanager
    def logged(self, event: str, **fields: Any) -> Iterator[None]:
        """Log the begin of a run as an event with fields, and how the run ended."""
        self.event(event, **fields)
        try:
            yield
        except (Stopped, KeyboardInterrupt) as stop:
            if self.interrupt.requested:
                self.event("signal", signal=self.interrupt.requested)
            self.event("run_stopped", reason=str(stop) or "interrupted")
            raise
        except Exception as error:
            self.event("run_failed", error=type(error).__name__, reason=str(error))
            raise
        self.event("run_finished")

    def note(self, text: str, event: str = "warning", **fields: Any) -> None:
        """Record something, say it, and log it as an event."""
        self.notes.append(text)
        self.display.print(text)
        self.event(event, text=text, **fields)
        self._write()

    def halved(self, rows: int, what: str) -> None:
        """Note that memory holds no more than so many rows at a time."""
        self.note(f"out of memory: from then on {rows} {what}", "batch_halved", rows=rows, of=what)

    def _not_logged(self, reason: str) -> None:
        self.display.print(f"{events.FILE} cannot be written ({reason}): the run goes on without")

    def _write(self) -> None:
        lost = self._events.lost
        notes = [*self.notes, f"{lost} events are not in {events.FILE}"] if lost else self.notes
        self.store.write_session(self.name, self.readings, self.meter.grid, self.meter.note, notes)

    def show_energy(self) -> None:
        """Tell the display what was spent so far by this process."""
        self.display.energy(self.meter.total_kwh, self.meter.total_kg_co2, self.meter.method)
