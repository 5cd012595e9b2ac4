from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd2eval.energy import (
    EnergyMeter,
    _missing_sensors,
    assumed_watts,
    grid_intensity,
    impact,
    split,
)
from sd2eval.errors import InputError
from sd2eval.records import EnergyReading

ROOT = Path(__file__).resolve().parents[1]


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


@pytest.fixture(scope="module")
def meter() -> EnergyMeter:
    """One meter for the module: a process has one tracker, and its hardware probe takes a second."""
    meter = EnergyMeter("USA")
    with meter.task("setup"):
        busy(0.1)
    return meter


def watts(reading: EnergyReading) -> float:
    return reading.kwh * 1000 * 3600 / reading.seconds


def test_a_busy_second_costs_plausible_energy(meter: EnergyMeter) -> None:
    with meter.task("sample"):
        busy(1.0)
    reading = meter.readings[-1]
    assert reading.stage == "sample"
    assert 1.0 <= reading.seconds < 1.5
    assert 2 < watts(reading) < 5000
    assert reading.kg_co2 == pytest.approx(reading.kwh * grid_intensity("USA"))


def test_work_costs_more_than_waiting_and_longer_more_than_shorter(meter: EnergyMeter) -> None:
    for seconds in (0.1, 0.4):
        with meter.task("sample"):
            busy(seconds)
    short, long = meter.readings[-2:]
    assert long.kwh > 2 * short.kwh


def test_cells_and_setup_add_up_to_the_total(meter: EnergyMeter) -> None:
    for stage in ("sample", "decode", "sample"):
        with meter.task(stage):
            busy(0.02)
    cells = {(checkpoint, scale): 1.0 + scale for checkpoint in "ab" for scale in (1.5, 3.0, 8.0)}
    setup = [reading for reading in meter.readings if reading.stage == "setup"]
    work = [reading for reading in meter.readings if reading.stage != "setup"]
    shares = [share for reading in work for share in split(reading, cells).values()]
    assert len(setup) == 1
    assert setup[0].kwh > 0
    assert len(shares) == 6 * len(work)
    assert math.fsum(row.kwh for row in (*setup, *shares)) == pytest.approx(meter.total_kwh, rel=1e-14)
    assert math.fsum(row.kg_co2 for row in (*setup, *shares)) == pytest.approx(meter.total_kg_co2, rel=1e-14)


def test_co2_is_codecarbons() -> None:
    """An independent tracker with codecarbon's own arithmetic comes to the same CO2 per kWh."""
    codecarbon = pytest.importorskip("codecarbon")
    for country in ("USA", "FRA"):
        tracker = codecarbon.OfflineEmissionsTracker(country_iso_code=country, output_methods=[])
        tracker.start_task("busy")
        busy(0.05)
        data = tracker.stop_task("busy")
        assert data.emissions / data.energy_consumed == pytest.approx(grid_intensity(country), rel=1e-6)


def test_a_task_ends_when_its_body_raises(meter: EnergyMeter) -> None:
    count = len(meter.readings)
    with pytest.raises(KeyboardInterrupt), meter.task("sample"):
        raise KeyboardInterrupt
    assert len(meter.readings) == count + 1
    with meter.task("metrics"):
        busy(0.01)
    assert meter.readings[-1].kwh > 0
    assert meter.readings[-1].stage == "metrics"


def test_tasks_do_not_nest(meter: EnergyMeter) -> None:
    with (
        meter.task("sample"),
        pytest.raises(RuntimeError, match="'decode' inside 'sample'"),
        meter.task("decode"),
    ):
        pass
    assert meter.readings[-1].stage == "sample"
    assert meter.readings[-1].kwh > 0


def test_hundreds_of_tasks_are_cheap(meter: EnergyMeter) -> None:
    costs = []
    for _ in range(100):
        begin = time.perf_counter()
        with meter.task("decode"):
            pass
        costs.append(time.perf_counter() - begin)
    assert statistics.median(costs) < 0.010
    assert all(reading.kwh >= 0 for reading in meter.readings)


def test_label_agrees_with_the_note(meter: EnergyMeter) -> None:
    assert meter.grid == "USA"
    assert (meter.method == "measured") == (meter.note == "")
    assert "\n" not in meter.note
    counters = list(Path("/sys/class/powercap").glob("*rapl*/energy_uj"))
    if sys.platform == "linux" and not any(os.access(path, os.R_OK) for path in counters):
        assert meter.method == "estimated"
        assert "CPU power is modelled" in meter.note


def test_an_unused_meter_claims_nothing() -> None:
    unused = EnergyMeter("FRA")
    assert (unused.total_kwh, unused.total_kg_co2, unused.method) == (0.0, 0.0, "estimated")
    assert unused.kg_per_kwh < grid_intensity("USA"), "nuclear against gas and coal"


@pytest.mark.parametrize("country", ["XYZ", "US", "", "United States"])
def test_unknown_country(country: str) -> None:
    with pytest.raises(InputError, match="ISO codes known, such as USA"):
        EnergyMeter(country)


QUIET = """
import signal, socket, sys, threading
def refuse(*a, **k): raise SystemExit("NETWORK")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
from sd2eval.energy import EnergyMeter
meter = EnergyMeter("USA")
with meter.task("setup"):
    import time
    time.sleep(1.3)  # long enough for a sample of the 1 Hz thread
assert meter.readings[0].kwh > 0 and "codecarbon" not in meter.note, meter.note
assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
assert meter._tracker._output_handlers == []
print(meter.readings[0].kwh * 3.6e6 / meter.readings[0].seconds)
"""


def in_a_fresh_process(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = (
        os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder)} | environment
    )
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60)


def test_nothing_is_printed_written_sent_or_taken_over(tmp_path: Path, meter: EnergyMeter) -> None:
    """Even when codecarbon's own configuration asks for all of it."""
    asked = {
        "CODECARBON_EMISSIONS_ENDPOINT": "http://192.0.2.1/",
        "CODECARBON_CO2_SIGNAL_API_TOKEN": "token",
        "CODECARBON_ELECTRICITYMAPS_API_TOKEN": "token",
        "CODECARBON_OUTPUT_METHODS": "csv,api",
        "CODECARBON_SAVE_TO_FILE": "true",
        "CODECARBON_LOG_LEVEL": "debug",
        "CODECARBON_ALLOW_MULTIPLE_RUNS": "false",
        "CODECARBON_CLOUD_PROVIDER": "aws",
        "CODECARBON_MEASURE_POWER_SECS": "soon",
        "CODECARBON_PUE": "7",
    }
    done = in_a_fresh_process(QUIET, tmp_path, **asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    with meter.task("setup"):
        time.sleep(0.2)
    assert watts(meter.readings.pop()) == pytest.approx(float(done.stdout), rel=0.7), "neither is PUE 7 taken"


BROKEN = """
import sys, time
import codecarbon, psutil
from sd2eval.energy import EnergyMeter, assumed_watts
{damage}
meter = EnergyMeter("USA")
with meter.task("setup"): time.sleep({seconds})
with meter.task("sample"): time.sleep(0.01)
assert [r.stage for r in meter.readings] == ["setup", "sample"]
assert all(r.kwh > 0 and r.kg_co2 > 0 for r in meter.readings), meter.readings
assert all(r.method == "estimated" for r in meter.readings) and meter.method == "estimated"
print(meter.grid + "; " + meter.note)
"""
FAILURE = "def fail(*a, **k): raise OSError('no /proc')\n"


@pytest.mark.parametrize(
    ("damage", "seconds", "expected"),
    [
        (
            "sys.modules['codecarbon.input'] = None",
            0.01,
            "world average; codecarbon failed: ModuleNotFoundError",
        ),
        (FAILURE + "psutil.cpu_times = fail", 0.01, "USA; CPU power is modelled (constant)"),
        (FAILURE + "psutil.cpu_percent = fail", 1.4, "codecarbon: OSError while sampling: no /proc"),
    ],
    ids=["import", "proc", "thread"],
)
def test_a_broken_codecarbon_never_stops_a_run_and_is_never_silent(
    tmp_path: Path, damage: str, seconds: float, expected: str
) -> None:
    done = in_a_fresh_process(BROKEN.format(damage=damage, seconds=seconds), tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert expected in done.stdout


@pytest.mark.parametrize("method", ["_ensure_hardware_ready", "start_task", "stop_task"])
@pytest.mark.parametrize("answer", [None, OSError("no\nway"), SimpleNamespace(energy_consumed=math.nan)])
def test_a_failure_inside_codecarbon_becomes_a_labelled_estimate(
    monkeypatch: pytest.MonkeyPatch, method: str, answer: Any
) -> None:
    def fail(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("codecarbon.OfflineEmissionsTracker." + method, fail)
    meter = EnergyMeter("FRA")
    for stage in ("load", "sample"):
        with meter.task(stage):
            time.sleep(0.02)
    assert [reading.stage for reading in meter.readings] == ["load", "sample"]
    assert [watts(reading) for reading in meter.readings] == pytest.approx([assumed_watts()] * 2)
    assert meter.method == "estimated"
    assert meter.note.count("codecarbon failed") == 1
    assert f"{assumed_watts():g} W were assumed" in meter.note
    assert "\n" not in meter.note
    assert meter.grid == "FRA"


def test_a_real_counter_counts_as_a_sensor(tmp_path: Path) -> None:
    hardware = pytest.importorskip("codecarbon.external.hardware")
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in {"name": "package-0", "energy_uj": "1000", "max_energy_range_uj": "9999"}.items():
        (zone / name).write_text(text)
    model: Callable[..., Any] = hardware.CPU
    counted = model(str(tmp_path), "intel_rapl", "a CPU", 100, rapl_dir=str(tmp_path))
    modelled = model(str(tmp_path), "cpu_load", "a CPU", 100)
    gpu = [] if not Path("/dev/nvidiactl").exists() else [type("GPU", (), {})()]
    assert _missing_sensors([counted, *gpu]) == []
    assert "CPU power is modelled (cpu_load)" in _missing_sensors([modelled, *gpu])[0]
    assert "CPU power is modelled (none)" in _missing_sensors(gpu)[0]


READINGS = st.builds(
    EnergyReading,
    stage=st.just("sample"),
    seconds=st.floats(1e-9, 1e7),
    kwh=st.floats(1e-15, 1e4) | st.just(0.0),
    kg_co2=st.floats(1e-15, 1e4) | st.just(0.0),
    method=st.just("estimated"),
)
WEIGHTS = st.lists(st.floats(0, 1e12, allow_subnormal=False), min_size=1, max_size=12).filter(any)


@settings(derandomize=True, deadline=None)
@given(reading=READINGS, weights=WEIGHTS)
def test_split_preserves_sums_exactly(reading: EnergyReading, weights: list[float]) -> None:
    parts = split(reading, dict(enumerate(weights)))
    assert list(parts) == list(range(len(weights)))
    for name in ("seconds", "kwh", "kg_co2"):
        whole, values = getattr(reading, name), [getattr(part, name) for part in parts.values()]
        assert sum(values) == sum(reversed(values)) == math.fsum(values) == whole
        for value, weight in zip(values, weights, strict=True):
            assert abs(value - whole * (weight / math.fsum(weights))) <= 4e-16 * whole
            assert value >= 0
    assert {(part.stage, part.method) for part in parts.values()} == {("sample", "estimated")}


@pytest.mark.parametrize(
    "weights", [{}, {"a": 0.0}, {"a": 1.0, "b": -1.0}, {"a": math.nan}, {"a": math.inf, "b": 1}]
)
def test_split_refuses_senseless_weights(weights: dict[str, float]) -> None:
    reading = EnergyReading(stage="sample", seconds=1, kwh=1, kg_co2=1, method="measured")
    with pytest.raises(ValueError, match="weights must be"):
        split(reading, weights)


def test_impact_of_the_model_card() -> None:
    assert impact(200_000, 250, 0.3) == pytest.approx(15_000)
    assert impact(200_000, 250, 0.37) == pytest.approx(18_500)  # what its calculator has for AWS us-east-1
    assert impact(200_000, 250, 0.57) == pytest.approx(28_500)  # and for us-east-2
    assert impact(1, 1000, 1) == 1
