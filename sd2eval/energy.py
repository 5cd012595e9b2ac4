"""Energy and CO2 of a run: codecarbon behind one class, its split over cells, and the card's calculation.

One tracker per process and contiguous tasks only: mixing codecarbon's `start()` with tasks loses energy, and
its tasks do not nest. What is measured and what is assumed: `docs/energy.md`.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar

from sd2eval.errors import InputError
from sd2eval.records import EnergyReading

Key = TypeVar("Key", bound=Hashable)

CPU_SENSORS = ("intel_rapl", "windows_emi", "intel_power_gadget")
"""codecarbon's CPU modes that read a counter; `cpu_load` and `constant` are models."""
SENSED_SECONDS = 0.1
"""A task of this length must have moved a counter."""
WATTS_PER_THREAD, RAM_WATTS, WORLD_KG_PER_KWH = 4.0, 20.0, 0.475
"""codecarbon's figures for an unknown CPU, 8 to 32 GB, and the world (IEA 2019); used when it fails."""

_ERRORS: list[str] = []
"""What codecarbon logged as an error since the last look."""


class EnergyMeter:
    """Energy of the contiguous tasks of this process, in kWh, and their CO2 on a country's grid, in kg.

    The whole machine is counted, other programs included. The first task probes the hardware before it begins
    (1.5 s). codecarbon never reaches the network, prints, writes a file or touches a signal handler, whatever
    its own configuration files and variables say. When it fails, the run goes on with a labelled estimate.
    """

    def __init__(self, country: str = "USA", share: float = 1.0) -> None:
        """Take the grid of `country`, a three-letter ISO code.

        Args:
            country: whose grid.
            share: of this machine's energy that is counted as this process's, 0..1, where several work on it.

        Raises:
            InputError: codecarbon does not know the code.
        """
        self.readings: list[EnergyReading] = []
        self.grid = country.upper()
        """Grid that the kg CO2 assume: the country's code, or `world average` if that cannot be read."""
        self._notes: dict[str, None] = {}
        self._tracker: Any = None
        self._failed = self._sensed = False
        self._active = ""
        self.share = share
        try:
            self.kg_per_kwh = grid_intensity(country)
        except InputError:
            raise
        except Exception as error:  # a broken codecarbon must not stop a run
            self.grid, self.kg_per_kwh = "world average", WORLD_KG_PER_KWH
            self._give_up(error)

    @contextmanager
    def task(self, stage: str) -> Iterator[None]:
        """Count the body as one reading of `stage`, also when it raises. Takes 1 ms; names may repeat.

        Raises:
            RuntimeError: Another task is running: codecarbon would ignore this one.
        """
        if self._active:
            raise RuntimeError(f"energy task {stage!r} inside {self._active!r}: tasks do not nest")
        self._active = stage
        begin = time.perf_counter()
        try:
            self._begin()
            begin = time.perf_counter()
            yield
        finally:
            self.readings.append(self._end(stage, time.perf_counter() - begin))
            self._active = ""

    @property
    def total_kwh(self) -> float:
        """Energy of all finished tasks."""
        return math.fsum(reading.kwh for reading in self.readings)

    @property
    def total_kg_co2(self) -> float:
        """CO2 of all finished tasks."""
        return math.fsum(reading.kg_co2 for reading in self.readings)

    @property
    def method(self) -> Literal["measured", "estimated"]:
        """`measured` when every reading so far comes from sensors of the CPU and of the GPU if there is one.

        Memory does not matter here: it is a constant in codecarbon on every machine.
        """
        sensed = self.readings and all(reading.method == "measured" for reading in self.readings)
        return "measured" if sensed else "estimated"

    @property
    def note(self) -> str:
        """What was assumed and what went wrong, in one line; empty when CPU and GPU have working sensors."""
        return " ".join("; ".join(self._notes).split())

    def _begin(self) -> None:
        if self._failed:
            return
        try:
            if self._tracker is None:
                self._tracker = _offline_tracker(self.grid)
                missing = _missing_sensors(self._tracker._hardware)
                self._sensed = not missing
                self._notes |= dict.fromkeys(missing)
            self._tracker.start_task()
        except Exception as error:
            self._give_up(error)

    def _end(self, stage: str, seconds: float) -> EnergyReading:
        kwh, sensed = assumed_watts() / 1000 * seconds / 3600, False
        if not self._failed:
            try:
                data = self._tracker.stop_task()
                if not 0 < data.energy_consumed < math.inf:  # memory alone is more than nothing
                    raise ValueError(f"an energy of {data.energy_consumed} kWh")
                kwh, sensed = data.energy_consumed, not self._trouble(data, seconds) and self._sensed
            except Exception as error:
                self._give_up(error)
        method: Literal["measured", "estimated"] = "measured" if sensed else "estimated"
        kwh *= self.share
        kg_co2 = kwh * self.kg_per_kwh
        return EnergyReading(stage=stage, seconds=seconds, kwh=kwh, kg_co2=kg_co2, method=method)

    def _trouble(self, data: Any, seconds: float) -> bool:
        """Note why the figures of a task cannot be trusted, and say whether there was a reason."""
        reasons = [f"codecarbon: {line}" for line in _drain()]
        if seconds > SENSED_SECONDS and data.cpu_energy <= 0:
            reasons.append("the CPU counter did not move")
        if seconds > SENSED_SECONDS and data.gpu_count and data.gpu_energy <= 0:
            reasons.append("the GPU counter did not move")
        self._notes |= dict.fromkeys(reasons)
        return bool(reasons)

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        reasons = [f"codecarbon failed: {line}" for line in (*_drain(), f"{type(error).__name__}: {error}")]
        assumed = f"from then on {assumed_watts():g} W were assumed, without a GPU"
        self._notes |= dict.fromkeys([*reasons, assumed])


def grid_intensity(country: str) -> float:
    """Return the kg CO2 per kWh that codecarbon holds for a three-letter ISO country code.

    Raises:
        InputError: The code is unknown.
    """
    logging.getLogger("codecarbon").addFilter(_keep)  # before the import, which logs
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    source, code = DataSource(), country.upper()
    known = source.get_global_energy_mix_data()
    if code not in known:
        raise InputError(
            f"energy.country={country}: not among the {len(known)} ISO codes known, such as USA, FRA"
        )
    geo = GeoMetadata(country_iso_code=code, country_name=known[code]["country_name"])
    return float(Emissions(source).get_country_emissions(Energy.from_energy(kWh=1.0), geo))


def assumed_watts() -> float:
    """Return the watts of this machine's CPU at full load and its memory when nothing is known of them."""
    return WATTS_PER_THREAD * (os.cpu_count() or 1) + RAM_WATTS


def split(reading: EnergyReading, weights: Mapping[Key, float]) -> dict[Key, EnergyReading]:
    """Divide a reading over keys in proportion to counted work, such as the UNet calls of each cell.

    Shares are whole multiples of the value's last binary digit: they add up to it exactly, in any order.

    Raises:
        ValueError: A weight is negative or not finite, or all are zero.
    """
    usable = all(math.isfinite(weight) and weight >= 0 for weight in weights.values())
    if not usable or not any(weights.values()):
        raise ValueError(f"weights must be finite, not negative and not all zero, got {dict(weights)}")
    sums = list(itertools.accumulate(map(Fraction, weights.values()), initial=Fraction(0)))
    edges = [below / sums[-1] for below in sums]
    parts = zip(*(_apportion(v, edges) for v in (reading.seconds, reading.kwh, reading.kg_co2)), strict=True)
    return {
        key: EnergyReading(stage=reading.stage, seconds=seconds, kwh=kwh, kg_co2=kg, method=reading.method)
        for key, (seconds, kwh, kg) in zip(weights, parts, strict=True)
    }


def impact(hours: float, watts: float, kg_per_kwh: float) -> float:
    """Return kg CO2 as the Machine Learning Impact calculator does (Lacoste et al., 2019): a plain product.

    The card's 200,000 A100 hours at 250 W give its 15,000 kg only with 0.3 kg/kWh; see `docs/energy.md`.
    """
    return hours * watts / 1000 * kg_per_kwh


def _apportion(value: float, edges: list[Fraction]) -> list[float]:
    mantissa, exponent = math.frexp(value)
    units = int(math.ldexp(mantissa, 53))
    marks = [round(units * edge) for edge in edges]
    return [math.ldexp(high - low, exponent - 53) for low, high in itertools.pairwise(marks)]


def _offline_tracker(country: str) -> Any:
    """Return a codecarbon tracker that has probed the hardware; whatever could reach out is pinned."""
    from codecarbon import OfflineEmissionsTracker

    unset = ("region", "cloud_provider", "cloud_region", "country_2letter_iso_code", "emissions_endpoint")
    guessed = ("force_carbon_intensity_g_co2e_kwh", "force_cpu_power", "force_ram_power", "gpu_ids")
    off = ("force_mode_cpu_load", "rapl_include_dram", "rapl_prefer_psys")
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        allow_multiple_runs=True,  # False takes SIGTERM and SIGINT, and a stale lock file disables it
        electricitymaps_api_token="",  # None would let a configured token in, and so the network
        output_methods=[],
        output_handlers=[],
        output_dir=tempfile.gettempdir(),  # must exist; nothing is written
        api_call_interval=-1,
        tracking_mode="machine",
        measure_power_secs=15.0,
        log_level="error",
        logger_preamble="",
        pue=1.0,
        wue=0.0,
        **dict.fromkeys((*unset, *guessed)),
        **dict.fromkeys(off, False),
    )
    tracker.get_detected_hardware()
    sampler = getattr(tracker, "_scheduler_monitor_power", None)
    if sampler is not None:
        sampler.function = functools.partial(_sample, sampler.function)
    return tracker


def _sample(measure: Callable[[], None]) -> None:
    """Call codecarbon's sampling at 1 Hz, whose thread would print a traceback."""
    try:
        measure()
    except Exception as error:
        _ERRORS.append(f"{type(error).__name__} while sampling: {error}")


def _keep(record: logging.LogRecord) -> bool:
    """Filter codecarbon's log: nothing reaches the terminal, errors are remembered."""
    if record.levelno >= logging.ERROR:
        _ERRORS.append(" ".join(record.getMessage().split()))
    return False


def _drain() -> list[str]:
    lines, _ERRORS[:] = list(_ERRORS), []
    return lines


def _missing_sensors(hardware: Iterable[Any]) -> list[str]:
    """Say which of codecarbon's components are modelled instead of measured; memory always is."""
    parts = {type(part).__name__: part for part in hardware}
    mode = getattr(parts.get("CPU"), "_mode", "none")
    missing = []
    if mode not in CPU_SENSORS:
        missing.append(f"CPU power is modelled ({mode}): no readable counter such as RAPL")
    if "GPU" not in parts and Path("/dev/nvidiactl").exists():
        missing.append("the GPU is not counted: codecarbon does not see it")
    return missing
