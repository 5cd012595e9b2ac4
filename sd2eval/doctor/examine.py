"""The order of the checks, what each needs from those before it, and the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd2eval.doctor import devices, files, machine, packages
from sd2eval.doctor.findings import PROBLEM, WARNING, Diagnosis, Finding, Findings, OnFinding, reason
from sd2eval.doctor.limits import within
from sd2eval.doctor.plan import Plan, composed, recorded
from sd2eval.errors import InputError

if TYPE_CHECKING:
    from sd2eval.doctor.weights import Wanted

SECONDS = 5.0
"""For a check."""
LONG_SECONDS = 15.0
"""For a check that reads the whole data set, asks several hosts or hashes small files."""
IMPORT_SECONDS = devices.SECONDS + 5


@dataclass
class Known:
    """What checks have learned for those after them."""

    plan: Plan | None
    facts: dict[str, Any] | None = None
    """What torch said; None: it cannot be asked."""
    importable: bool = False
    """Whether everything that a sweep imports can be imported here."""
    wanted: Wanted | None = None
    """Filled by the checks of weights."""
    findings: list[Finding] = field(default_factory=list)


Check = Callable[[Known], Findings]


def run_doctor(
    *overrides: str, folder: str | Path | None = None, on_finding: OnFinding | None = None
) -> Diagnosis:
    """Check this machine for a sweep: packages, devices, memory, disk, weights, data, locks, sensors.

    Nothing is downloaded or computed; what is written goes away again. A check that fails or hangs becomes a
    warning.

    Args:
        overrides: settings of the sweep, as on the command line; none: those of the run in `folder`, else the
            mini study.
        folder: a run folder; None: the sweep's `out`.
        on_finding: called with each finding as it is made.

    Raises:
        InputError: a setting is wrong, or the run folder's record is.
    """
    plan, unusable = _plan(overrides, None if folder is None else Path(folder).expanduser())
    known = Known(plan)

    def take(findings: Findings) -> None:
        for finding in findings:
            known.findings.append(finding)
            if on_finding:
                on_finding(finding)

    for name, check, seconds in CHECKS:
        take(within(seconds, name, partial(check, known)))
    if plan is None:
        take([Finding("plan", PROBLEM, f"settings cannot be read: {unusable}", "see the packages above")])
    else:
        for name, check, seconds in PLAN_CHECKS:
            take(within(seconds, name, partial(check, known)))
    return Diagnosis(str(plan or "none: the settings cannot be read"), known.findings)


def _plan(overrides: tuple[str, ...], folder: Path | None) -> tuple[Plan | None, str]:
    """Return the plan, or why there is none: Hydra itself may be what is broken."""
    try:
        from sd2eval.store import RunFolder

        store = RunFolder.at(folder) if folder else None
        if store and store.exists and not overrides:
            return recorded(store), ""
        return composed(overrides, store.path if store else None), ""
    except InputError:
        raise
    except ImportError as error:
        return None, reason(error)


def _torch(known: Known) -> Iterator[Finding]:
    try:
        known.facts = devices.ask()
    except devices.TorchUnusableError as error:
        yield error.finding
        return
    yield from devices.torch(known.facts)
    yield from devices.devices(known.facts, known.plan.config.device if known.plan else "auto")


def _libraries(known: Known) -> Iterator[Finding]:
    if known.facts is None:
        yield Finding("libraries", WARNING, "not checked: torch cannot be used", "mend torch first")
        return
    for finding in packages.libraries():
        known.importable = finding.level != PROBLEM
        yield finding


def _weights(known: Known) -> Iterator[Finding]:
    if not (known.plan and known.importable):
        yield _not_checked("weights")
        return
    from sd2eval.doctor import weights

    known.wanted = weights.Wanted()
    yield from weights.checkpoints(known.plan.definitions, known.wanted)
    yield from weights.networks(known.plan.config.protocol, known.plan.definitions, known.wanted)


def _hub(known: Known) -> Iterator[Finding]:
    if known.wanted is None:
        yield _not_checked("hub")
        return
    from sd2eval.doctor import network

    yield from network.hosts(known.wanted)


def _data(known: Known) -> Iterator[Finding]:
    if not (known.plan and known.importable):
        yield _not_checked("data")
        return
    from sd2eval.doctor import room

    yield from room.data(known.plan)


def _not_checked(check: str) -> Finding:
    return Finding(check, WARNING, "not checked: the libraries cannot be imported", "mend them first")


def _disk(known: Known) -> Iterator[Finding]:
    from sd2eval.doctor import room

    assert known.plan is not None  # asked with a plan only
    fetched: dict[Path, int] = {}
    for folder, size in _downloads(known):
        fetched[folder] = fetched.get(folder, 0) + size
    yield from room.disk(known.plan, fetched)


def _downloads(known: Known) -> Iterator[tuple[Path, int]]:
    """Yield the folder and the size of everything that is to be fetched."""
    from sd2eval.weights import hub
    from sd2eval.weights.inventory import torch_hub_folder

    for entry in known.wanted.missing if known.wanted else ():
        yield torch_hub_folder() if entry.url else hub.cache_root(), entry.about_bytes or 0


def _memory(known: Known) -> Iterator[Finding]:
    from sd2eval.doctor import room

    wanted = known.wanted
    on_gpu = bool(known.facts and known.facts["gpus"])
    sizes = (wanted.checkpoint_bytes, wanted.network_bytes) if wanted else ([], [])
    yield from machine.memory(room.memory_need(*sizes, on_gpu), "one checkpoint and the metrics' networks")


def _run_folder(known: Known) -> Iterator[Finding]:
    from sd2eval.store import RunFolder

    assert known.plan is not None
    folder = known.plan.folder
    try:
        if known.plan.named:
            RunFolder(folder).refuse_foreign()
    except InputError as error:
        yield Finding("run_folder", PROBLEM, str(error), "out=DIR names another", about=str(folder))
        return
    yield from files.run_folder(folder)


def _caches(known: Known) -> Iterator[Finding]:
    from sd2eval.cache import cache_folder
    from sd2eval.weights import hub
    from sd2eval.weights.inventory import torch_hub_folder

    wanted = known.wanted
    missing = wanted.missing if wanted else []
    from_hub = any(entry.repository for entry in missing) or bool(wanted and wanted.elsewhere)
    recorded = any(entry.sha256 is None for entry in (wanted.entries if wanted else ()))
    ours = "digests and features"
    yield from files.cache(ours, "SD2EVAL_CACHE", cache_folder(), needed=recorded)
    yield from files.cache("weights", "HF_HOME", hub.cache_root(), needed=from_hub, linked=True)
    others = any(entry.url for entry in missing)
    yield from files.cache("other weights", "TORCH_HOME", torch_hub_folder(), needed=others)


def _engine(known: Known) -> Iterator[Finding]:
    if not (known.plan and known.importable):
        yield _not_checked("engine")
        return
    from sd2eval.doctor import engine

    yield from engine.engine(known.plan.config.engine, known.plan.folder)


def _energy(known: Known) -> Iterator[Finding]:
    from sd2eval.doctor import room

    assert known.plan is not None
    yield from room.energy(known.plan.config)


CHECKS: tuple[tuple[str, Check, float], ...] = (
    ("python", lambda known: machine.python(), SECONDS),
    ("packages", lambda known: packages.bounds(), SECONDS),
    ("torch", _torch, IMPORT_SECONDS),
    ("libraries", _libraries, IMPORT_SECONDS),
    ("cpu", lambda known: machine.cpu(), SECONDS),
    ("limits", lambda known: machine.limits(), SECONDS),
    ("terminal", lambda known: machine.terminal(), SECONDS),
    ("clock", lambda known: machine.clock(), SECONDS),
)
"""Of the machine: name, check, seconds that it may take."""

PLAN_CHECKS: tuple[tuple[str, Check, float], ...] = (
    ("data", _data, LONG_SECONDS),
    ("weights", _weights, LONG_SECONDS),
    ("hub", _hub, LONG_SECONDS),
    ("engine", _engine, LONG_SECONDS),
    ("memory", _memory, SECONDS),
    ("disk", _disk, SECONDS),
    ("run_folder", _run_folder, SECONDS),
    ("caches", _caches, SECONDS),
    ("energy", _energy, LONG_SECONDS),
)
"""Of the plan."""
