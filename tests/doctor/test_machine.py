"""Packages of other versions, torch that is broken, limits of control groups, odd settings."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sd2eval.doctor import devices, machine, packages
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding

ROOT = Path(__file__).parents[2]


def distribution(site: Path, name: str, version: str, *needs: str) -> None:
    """Write the metadata of an installed distribution."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (folder / "METADATA").write_text(
        "\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n"
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that goes before all others, and an sd2eval that needs two of them."""
    folder = tmp_path / "site"
    distribution(folder, "sd2eval", "0.1.0", "aaa<2,>=1.5", "bbb>=3", "ccc>=1; extra == 'test'")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_packages_within_their_bounds_are_one_line(site: Path) -> None:
    distribution(site, "aaa", "1.7")
    distribution(site, "bbb", "4.0rc1")
    (finding,) = packages.bounds()
    assert (finding.level, finding.found.split()[1]) == (OK, "2")


def test_a_package_that_is_missing_and_one_of_another_version_get_a_line_each(site: Path) -> None:
    distribution(site, "aaa", "2.0")
    old, absent = packages.bounds()
    assert (old.level, old.about) == (PROBLEM, "aaa")
    assert "aaa 2.0 is outside <2,>=1.5" in old.found
    assert "pip install 'aaa<2,>=1.5'" in old.advice
    assert (absent.level, absent.found) == (PROBLEM, "bbb is not installed")


def test_an_sd2eval_that_is_not_installed_has_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "DISTRIBUTION", "sd2eval-that-is-not-here")
    (finding,) = packages.bounds()
    assert (finding.level, "pip install" in finding.advice) == (WARNING, True)


def test_without_the_reader_of_bounds_the_packages_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    (finding,) = packages.bounds()
    assert (finding.level, finding.found) == (PROBLEM, "packaging is not installed")


def module(site: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module of that name before the real one in every process that is started."""
    (site / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(site))


@pytest.mark.parametrize(
    ("code", "level", "says"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", PROBLEM, "libcudart.so.13"),
        ("import os; os.kill(os.getpid(), 11)", PROBLEM, "code -11"),
        ("import time; time.sleep(60)", WARNING, "more than 1 s"),
    ],
)
def test_a_torch_that_fails_crashes_or_hangs_is_one_line(
    code: str, level: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, "torch", code, monkeypatch)
    monkeypatch.setattr(devices, "SECONDS", 1.0)
    with pytest.raises(devices.TorchUnusableError) as caught:
        devices.ask()
    assert caught.value.finding.level == level
    assert says in caught.value.finding.found


TORCH = """
__version__ = "2.15.0+cpu"
class version: cuda = None
class mps:
    is_available = staticmethod(lambda: False)
class backends: mps = mps
class cuda:
    device_count = staticmethod(lambda: 0)
def get_num_threads(): return 1
"""
"""As much of a lone CPU build as is asked."""


def test_a_torchvision_of_another_build_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, "torch", TORCH, monkeypatch)
    message = "operator torchvision::nms does not exist"
    module(tmp_path, "torchvision", f"raise RuntimeError({message!r})", monkeypatch)
    found = {finding.check: finding for finding in devices.torch(devices.ask())}
    assert (found["torch"].level, found["torch"].found) == (OK, "2.15.0+cpu, built for CPU")
    assert found["torchvision"].level == PROBLEM
    assert message in found["torchvision"].found
    assert "pip install torch torchvision" in found["torchvision"].advice


FACTS: dict[str, Any] = {
    "version": "2.15.0+cu132",
    "cuda": "13.2",
    "hip": None,
    "torchvision": "0.29.2+cu132",
    "torchvision_error": "",
    "mps": False,
    "driver": "",
    "gpus": [],
    "cuda_error": "",
}
GPU = {"index": 0, "error": "", "name": "NVIDIA H100", "capability": "9.0", "free": 79e9, "total": 80e9}


@pytest.mark.parametrize(
    ("torch", "torchvision", "level"),
    [
        ("2.15.0+cu132", "0.29.2+cu132", OK),
        ("2.15.0", "0.29.2", OK),
        ("2.15.0+cpu", "0.29.2+cpu", OK),
        ("2.15.0+cpu", "0.29.2+cu132", PROBLEM),
        ("2.15.0+cpu", "0.29.2", WARNING),
    ],
)
def test_builds_of_torch_and_torchvision_must_fit(torch: str, torchvision: str, level: str) -> None:
    *_, finding = devices.torch(FACTS | {"version": torch, "torchvision": torchvision})
    assert (finding.check, finding.level) == ("torchvision", level)


@pytest.mark.parametrize(
    ("change", "wanted", "levels", "says"),
    [
        ({"gpus": [GPU], "driver": "580.1"}, "auto", [OK], "capability 9.0, driver 580.1"),
        ({"gpus": [GPU]}, "cuda:0", [OK], "80.0 GB"),
        ({"gpus": [GPU]}, "cuda:1", [OK, PROBLEM], "device=cuda:1 is not here"),
        ({"gpus": [GPU | {"free": 10e9}]}, "cuda", [WARNING], "other programs"),
        ({"gpus": [GPU | {"total": 6e9, "free": 6e9}]}, "auto", [WARNING], "batch_size=1"),
        ({"gpus": [{"index": 0, "error": "device busy"}]}, "cuda", [WARNING, PROBLEM], "device busy"),
        ({"cuda_error": "driver too old"}, "auto", [WARNING, OK], "driver too old"),
        ({"mps": True}, "mps", [OK], "Apple"),
        ({}, "mps", [OK, PROBLEM], "device=mps is not here"),
        ({"driver": "580.1"}, "auto", [WARNING], "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_devices_are_listed_and_the_wanted_one_is_looked_for(
    change: dict[str, Any], wanted: str, levels: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "NVIDIA", Path("/nowhere"))
    found = list(devices.devices(FACTS | change, wanted))
    assert [finding.level for finding in found] == levels
    assert says in " ".join(f"{finding.found} {finding.advice}" for finding in found)


def test_an_nvidia_gpu_beside_a_torch_without_cuda_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "NVIDIA", tmp_path)
    (finding,) = devices.devices(FACTS | {"cuda": None}, "auto")
    assert (finding.level, "without CUDA" in finding.found) == (WARNING, True)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files in which Linux says what a process may use, in a folder."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUP_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    put(tmp_path, "proc/meminfo", "MemTotal:       64000000 kB\nMemAvailable:   32000000 kB\n")
    put(tmp_path, "proc/self/cgroup", "0::/job/step\n")
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_smallest_quota_of_the_groups_above_counts(system: Path) -> None:
    put(system, "cgroup/job/cpu.max", "250000 100000\n")
    put(system, "cgroup/job/step/cpu.max", "800000 100000\n")
    put(system, "cgroup/cpu.max", "max 100000\n")
    assert machine.cpu_quota() == 2.5
    (finding,) = machine.cpu()
    assert finding.level == WARNING
    assert "2.5 of 16 cores" in finding.found
    assert "OMP_NUM_THREADS=2" in finding.advice


def test_a_quota_of_version_one_is_read(system: Path) -> None:
    put(system, "proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n")
    put(system, "cgroup/cpu/box/cpu.cfs_quota_us", "400000")
    put(system, "cgroup/cpu/box/cpu.cfs_period_us", "100000")
    put(system, "cgroup/memory/box/memory.limit_in_bytes", "8000000000")
    put(system, "cgroup/memory/box/memory.usage_in_bytes", "3000000000")
    assert machine.cpu_quota() == 4
    assert machine.memory_bytes() == (8_000_000_000, 5_000_000_000)


def test_without_a_quota_all_cores_count(system: Path) -> None:
    put(system, "proc/self/cgroup", "2:cpu:/\n0::/\n")
    put(system, "cgroup/cpu/cpu.cfs_quota_us", "-1")
    put(system, "cgroup/cpu/cpu.cfs_period_us", "100000")
    (finding,) = machine.cpu()
    assert (finding.level, finding.found) == (OK, "16 cores, OMP_NUM_THREADS not set")


@pytest.mark.parametrize(
    ("value", "level"), [("4", OK), ("16", OK), ("32", WARNING), ("4,2", WARNING), ("0", WARNING)]
)
def test_thread_settings_must_fit_the_cores(
    value: str, level: str, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    (finding,) = machine.cpu()
    assert (finding.level, f"OMP_NUM_THREADS={value}" in finding.found) == (level, True)


@pytest.mark.parametrize(("needed", "level"), [(30e9, OK), (40e9, WARNING), (70e9, PROBLEM)])
def test_memory_is_compared_with_the_need(needed: float, level: str, system: Path) -> None:
    (finding,) = machine.memory(needed, "a checkpoint")
    assert (finding.level, finding.found.startswith("32.8 GB free of 65.5 GB")) == (level, True)


def test_the_memory_limit_of_the_group_counts(system: Path) -> None:
    put(system, "cgroup/job/memory.max", "16000000000\n")
    put(system, "cgroup/job/memory.current", "1000000000\n")
    put(system, "cgroup/job/step/memory.max", "max\n")
    assert machine.memory_bytes() == (16_000_000_000, 15_000_000_000)


def limited(which: int, value: int) -> Finding:
    before = resource.getrlimit(which)
    resource.setrlimit(which, (value, before[1]))
    try:
        (finding,) = machine.limits()
    finally:
        resource.setrlimit(which, before)
    return finding


def test_limits_of_the_shell_are_named_with_the_command_that_lifts_them() -> None:
    assert "ulimit -n" in limited(resource.RLIMIT_NOFILE, 100).advice
    assert "ulimit -f" in limited(resource.RLIMIT_FSIZE, 10**9).advice


@pytest.mark.parametrize(("encoding", "level"), [("utf-8", OK), ("ascii", WARNING), ("latin-1", WARNING)])
def test_an_output_that_is_not_utf_8_is_a_warning(encoding: str, level: str) -> None:
    code = "from sd2eval.doctor.machine import terminal; print(next(terminal()).level)"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip() == level


def test_a_clock_that_is_behind_the_installation_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    (now,) = machine.clock()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    (then,) = machine.clock()
    assert (now.level, then.level) == (OK, WARNING)
    assert "1970-01-01" in then.found


def test_this_python_is_good_enough() -> None:
    (finding,) = machine.python()
    assert finding.level == OK
    assert finding.found.startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
