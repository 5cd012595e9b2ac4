"""Verify a run folder: every digest again, every table computed again, and what is not there.

Without a repair nothing is written and no lock is taken: a sweep may go on meanwhile, so the tables, which it
writes last, are read before the shards are listed. What is damaged does not stop the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sd2eval import evaluate
from sd2eval.errors import InputError, resumable, writing
from sd2eval.records import RunInfo
from sd2eval.store import DIGESTS, RunFolder
from sd2eval.transfer.digests import MISSING
from sd2eval.transfer.meter import Meter
from sd2eval.verification import record, shards, tables
from sd2eval.verification.findings import Finding, Verification
from sd2eval.verification.shards import Checked

ROUNDS = 2
"""Of a repair: what was run, then what was made of it."""


@writing()
def verify_run(
    path: str | Path,
    *,
    repair: bool = False,
    data_root: str | None = None,
    device: str | None = None,
    progress: bool = False,
) -> Verification:
    """Return what in a run folder is damaged, missing or not finished; on request make that again.

    Args:
        path: the run folder.
        repair: move what is damaged into `quarantine/` and have it made again, and nothing else.
        data_root: where the data set lies now, for a repair.
        device: which device a repair draws on.
        progress: show on stderr how far it is.

    Raises:
        InputError: there is no run, a newer sd2eval wrote it, it may not be read, or it cannot be repaired.
        Stopped: a repair was interrupted; the same call goes on.
    """
    store = RunFolder.at(path)
    if not repair:
        return inspect(store, progress=progress)
    from sd2eval.verification.repair import Repair

    _require_run(store)  # before a lock is left in a folder that is none
    work = Repair(store, data_root=data_root, device=device, progress=progress)
    lines: list[str] = []
    with resumable():
        for _ in range(ROUNDS):
            with store.lock("repair"):  # what was found must still be so when it is moved
                found = inspect(store, progress=progress)
                done = work.begin(found)
            if not (done or work.pending):
                return replace(found, repaired=lines)
            lines += done or work.end()
            if not work.ground:
                break
        return replace(inspect(store, progress=progress), repaired=lines)


def _require_run(store: RunFolder) -> None:
    """Refuse a folder without a run.

    Raises:
        InputError: there is none, or a newer sd2eval wrote it.
    """
    if not store.path.is_dir():
        store.read_info()  # says what is wrong with the path
    record.check_info(store, record.check_digests(store)[0])


def inspect(store: RunFolder, *, progress: bool = False) -> Verification:
    """Return what is found in a run folder.

    Raises:
        InputError: there is no run, or a newer sd2eval wrote it.
    """
    if not store.path.is_dir():
        store.read_info()  # says what is wrong with the path
    known, findings = record.check_digests(store)
    info, faults = record.check_info(store, known)
    findings += [*faults, *tables.leftovers(store), *tables.given_up(store)]
    if info is None:
        reason = "its shards, images and tables: what was run is not known without run.json"
        return Verification(store.path, findings=findings, unchecked=[reason])
    return _inspect(store, info, known, findings, progress=progress)


def _inspect(
    store: RunFolder, info: RunInfo, known: Mapping[str, Any], findings: list[Finding], *, progress: bool
) -> Verification:
    captions, faults = record.check_prompts(store, info, known)
    findings += faults
    tables_then = tables.read(store)  # before the shards are listed: a sweep may publish some meanwhile
    needed = tables.needed(tables_then, info, len(captions))
    places, strangers = shards.places(store, info, captions)
    findings += record.check_reference(store, info, known, len(captions), begun=bool(places))
    findings += [*strangers, *record.check_sessions(store)]
    findings += _lost_digests(store, known, places)
    checked = _check_shards(store, info, places, progress)
    findings += [finding for one in checked for finding in one.findings]
    if captions:
        findings += shards.missing(info, checked, needed, len(captions))
    now, _ = shards.places(store, info, captions)
    findings += shards.surplus(
        store, info, [*checked, *shards.later(now, checked)], captions, lambda cell: cell in needed
    )
    findings += tables.check_sheets(store, info, checked)
    cells = evaluate.planned_cells(info)
    was_finished = all(cell in needed for cell in cells)
    unchecked = _check_tables(store, info, tables_then, findings, progress=progress)
    return Verification(
        store.path,
        shards=len(checked),
        images=sum(one.images for one in checked),
        pngs=sum(one.pngs for one in checked),
        findings=findings,
        unchecked=unchecked,
        was_finished=was_finished,
    )


def _lost_digests(
    store: RunFolder, known: Mapping[str, Any], places: Sequence[shards.Place]
) -> list[Finding]:
    """Return that the record of digests is gone, where the first shard says that there was one."""
    if known or store.has(DIGESTS) or not places:
        return []
    file = store.path / "shards" / places[0].key / "manifest.json"
    try:
        sealed = b'"kept"' in file.read_bytes()  # written by the versions that write digests.json
    except OSError:
        sealed = False
    return [Finding(path=DIGESTS, what=MISSING, part="digests")] if sealed else []


def _check_shards(
    store: RunFolder, info: RunInfo, places: Sequence[shards.Place], progress: bool
) -> list[Checked]:
    scales = len(info.config["guidance_scales"])
    total = sum(len(place.block) for place in places) * scales
    with Meter(f"verifying {store.path.name}", total, unit="images", show=progress) as meter:

        def count(one: Checked) -> None:
            meter.to(meter.done + len(one.place.block) * scales)

        return shards.check_all(store, info, places, count)


def _check_tables(
    store: RunFolder, info: RunInfo, then: tables.Tables, findings: list[Finding], *, progress: bool
) -> list[str]:
    """Add what is wrong with tables and figure as they were; return what cannot be checked, and why."""
    findings += tables.check_index(store)
    damaged = [finding.path for finding in findings if finding.state == "damaged" and finding.part != "table"]
    inputs = [path for path in damaged if not path.startswith(("images/", "sheets/"))]
    unchecked = []
    unknown = evaluate.unknown_line(info)
    if unknown:
        unchecked.append(unknown)
    if inputs:
        unchecked.append(f"the scores of results.csv: they are computed again once {inputs[0]} is whole")
        return unchecked
    with Meter("computing the scores again", show=progress) as meter:
        meter.say("computing the scores again")
        try:
            faults = list(tables.check_results(store, info, then))
        except InputError as error:
            unchecked.append(f"the scores of results.csv: {error}")
            return unchecked
    named = {finding.path for finding in findings}
    findings += [fault for fault in faults if fault.path not in named]
    complete = all(evaluate.complete(store, info, name) for name in evaluate.checkpoint_names(info))
    if not complete and info.config["prompts"]["n"] == "auto":
        what = "not finished: a cell is not as precise as asked"
        findings.append(Finding(path="shards", what=what, part="shard", state="unfinished"))
    same = tables.read(store).index == then.index  # else a sweep or a report wrote them meanwhile
    if complete and then.ended and same and "emissions.csv" not in named:
        late = any(fault.state == "unfinished" for fault in faults)
        findings += [] if late else tables.check_emissions(store, info)
    return unchecked
