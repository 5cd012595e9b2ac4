"""The machine itself: Python, cores, memory, terminal, clock. Standard library only."""

from __future__ import annotations

import os
import platform
import re
import resource
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import sd2eval
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding
from sd2eval.transfer.meter import format_bytes

OLDEST_PYTHON = (3, 11)
FEW_FILES = 256
"""Open files; a sweep with several workers and memory-mapped weights needs about a hundred."""
CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def python() -> Iterator[Finding]:
    """Say which Python runs, and whether it is one that sd2eval is made for."""
    version, bits = platform.python_version(), struct.calcsize("P") * 8
    found = f"{version} ({platform.python_implementation()}, {bits}-bit) on {platform.platform(terse=True)}"
    if sys.version_info < OLDEST_PYTHON or bits < 64:
        least = ".".join(map(str, OLDEST_PYTHON))
        yield Finding("python", PROBLEM, found, f"use a 64-bit Python {least} or newer")
        return
    yield Finding("python", OK, found)


def cpu() -> Iterator[Finding]:
    """Say how many cores this process may use, and whether the thread settings fit them."""
    there, mine = os.cpu_count() or 1, usable_cores()
    quota = cpu_quota()
    able = min(mine, quota) if quota else float(mine)
    parts = [f"{able:g} of {there} cores usable" if able < there else f"{there} cores"]
    if quota and quota < mine:
        parts.append(f"limited to {quota:g} by the control group")
    elif mine < there:
        parts.append("limited by the affinity of this process")
    setting = os.environ.get("OMP_NUM_THREADS", "")
    parts.append(f"OMP_NUM_THREADS={setting}" if setting else "OMP_NUM_THREADS not set")
    threads = int(setting) if setting.isdecimal() else None
    if setting and not threads:
        yield Finding("cpu", WARNING, ", ".join(parts), "set OMP_NUM_THREADS to a whole number, or unset it")
    elif (threads or mine) > max(able, 1):
        advice = f"threads beyond the cores slow each other down: export OMP_NUM_THREADS={max(int(able), 1)}"
        yield Finding("cpu", WARNING, ", ".join(parts), advice)
    else:
        yield Finding("cpu", OK, ", ".join(parts))


def usable_cores() -> int:
    """Return the cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota() -> float | None:
    """Return the cores' worth of time that the control groups of this process allow, or None."""
    quotas = []
    for folder in cgroup_folders("cpu"):
        if (text := _text(folder / "cpu.max")) and not text.startswith("max"):  # version 2
            quotas.append(int(text.split()[0]) / int(text.split()[1]))
        limit, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")  # version 1
        if limit and period and int(limit) > 0:
            quotas.append(int(limit) / int(period))
    return min(quotas, default=None)


def cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' control groups, its own and those above it."""
    for line in (_text(PROC / "self" / "cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = CGROUP_ROOT / controller if names else CGROUP_ROOT
        own = root / path.strip("/")
        inside = own == root or root in own.parents
        yield from dict.fromkeys(
            [own, *(p for p in own.parents if inside and (p == root or root in p.parents))]
        )
        yield root  # in a container, the group's own folder is mounted as the root


def memory(needed: float, why: str) -> Iterator[Finding]:
    """Compare what memory is free with a rough need.

    Args:
        needed: bytes.
        why: what needs them, for the line.
    """
    total, free = memory_bytes()
    if total is None or free is None:
        advice = f"make sure that there are {format_bytes(int(needed))} for {why}"
        yield Finding("memory", WARNING, "how much there is cannot be read here", advice)
        return
    found = f"{format_bytes(free)} free of {format_bytes(total)}"
    found += f"; about {format_bytes(int(needed))} needed for {why} (estimated)"
    if total < needed:
        advice = "use a machine or a job with more memory, or fewer metrics at a time: protocol.metrics=[...]"
        yield Finding("memory", PROBLEM, found, advice)
    elif free < needed:
        yield Finding("memory", WARNING, found, "end other programs first")
    else:
        yield Finding("memory", OK, found)


def memory_bytes() -> tuple[int | None, int | None]:
    """Return the bytes of memory that this process may have, and those free; None where unknown."""
    lines = re.findall(r"(?m)^(\w+):\s+(\d+) kB$", _text(PROC / "meminfo") or "")
    known = {name: int(value) * 1024 for name, value in lines}
    total, free = known.get("MemTotal"), known.get("MemAvailable")
    if total is None:
        total = _sysconf_memory()
        free = total
    for folder in cgroup_folders("memory"):
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, now = _text(folder / most), _text(folder / used)
            if limit and limit.isdecimal() and total is not None and int(limit) < total:
                total = int(limit)
                free = min(free or total, max(total - int(now or 0), 0))
    return total, free


def _sysconf_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def limits() -> Iterator[Finding]:
    """Say whether the shell limits how many files are open or how large one is."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    few = files != resource.RLIM_INFINITY and files < FEW_FILES
    shown = "unlimited" if files == resource.RLIM_INFINITY else f"{files:,}"
    found = f"{shown} open files"
    if size != resource.RLIM_INFINITY:
        found += f", no file larger than {format_bytes(size)}"
        yield Finding("limits", WARNING, found, "lift the limit: ulimit -f unlimited")
    elif few:
        yield Finding("limits", WARNING, found, "raise the limit: ulimit -n 1024")
    else:
        yield Finding("limits", OK, found)


def terminal() -> Iterator[Finding]:
    """Say whether names and output can hold any character."""
    names, output = sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "none"
    kind = "a terminal" if sys.stdout is not None and sys.stdout.isatty() else "no terminal"
    found = f"output {output}, file names {names}, {kind}"
    if {_plain(names), _plain(output)} == {"utf8"}:
        yield Finding("terminal", OK, found)
    else:
        advice = "some characters are printed as their number: export LANG=C.UTF-8, or PYTHONUTF8=1"
        yield Finding("terminal", WARNING, found, advice)


def _plain(encoding: str) -> str:
    return encoding.lower().replace("-", "").replace("_", "")


def clock() -> Iterator[Finding]:
    """Compare the clock with the age of the program: one that is far behind breaks encrypted connections."""
    now = time.time()
    written = Path(sd2eval.__file__).stat().st_mtime
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < written - 24 * 3600:
        found += ", which is before sd2eval was installed"
        yield Finding("clock", WARNING, found, "set the clock: certificates are refused when it is behind")
    else:
        yield Finding("clock", OK, found)


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
