"""Move aside what is damaged and have just that made again.

What is to be done follows from what is on the disk and from the notes in `quarantine/`, so an interrupted
repair goes on. A shard is the unit: with one of its files its whole block is drawn again, from the same
noise. What was run comes first: until record and captions are whole, nothing else can be judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sd2eval import evaluate, report
from sd2eval.config import CheckpointConfig, SweepConfig
from sd2eval.config.recorded import recorded
from sd2eval.errors import InputError
from sd2eval.images import load_rgb, write_png
from sd2eval.records import RunInfo
from sd2eval.store import RunFolder
from sd2eval.verification import quarantine
from sd2eval.verification.findings import Verification
from sd2eval.verification.planned import GROUND, Plan, first_of, pixels_at_hand, planned
from sd2eval.verification.quarantine import Note
from sd2eval.verification.record import check_digests, check_info


class Repair:
    """Makes again what was found damaged, in two steps: what is quick, under the lock; then the sweep."""

    def __init__(
        self, store: RunFolder, *, data_root: str | None, device: str | None, progress: bool
    ) -> None:
        """Take what the run was told otherwise: where the data set lies, the device, whether bars show."""
        self.store = store
        self._data_root, self._device, self._progress = data_root, device, progress
        self.pending = False
        """Whether something is left to do that needs the folder's lock for itself, see `end`."""
        self.ground = False
        """Whether what was run was damaged: all else can be judged only now."""

    def begin(self, found: Verification) -> list[str]:
        """Move what is damaged aside and write again what needs no sweep; the caller holds the lock.

        Returns what was done, one line each, where that is all there is to do.

        Raises:
            InputError: it cannot be done; nothing was moved then, unless by a repair before.
        """
        _require_read(found)
        store, damaged = self.store, first_of(found)
        self.ground = any(finding.part in GROUND for finding in damaged)
        self.pending = False
        if not damaged and not quarantine.open_notes(store):
            return []
        quarantine.require_folder(store)
        info = _info(store)
        self._settings = config, definitions = _settings(
            store, info, self._data_root, self._device, self._progress
        )
        pixels = pixels_at_hand(store, damaged)
        plan = planned(store, info, damaged, pixels, was_finished=found.was_finished)
        if plan.needs_data:
            _require_data(config, definitions, info)
        if damaged:
            quarantine.write(store, plan.note)
            quarantine.move(store, plan.note)
            if "prompts" in plan.written:
                store.write_prompts(_require_data(config, definitions, info).prompts)
            _mend(store, info, plan, pixels)
        if plan.written:
            return _close(store, plan.note)
        self.pending = True
        return []

    def end(self) -> list[str]:
        """Run the sweep or write the tables, and return what was done, one line each.

        Raises:
            InputError: somebody else has begun to write there.
            Stopped: it was interrupted; the same repair goes on.
        """
        store, notes = self.store, quarantine.open_notes(self.store)
        if any(note.sample for note in notes):
            _sweep(*self._settings, notes)
        with store.lock("repair"):
            if any(note.tables for note in notes) and not any(note.sample for note in notes):
                report.write_tables(store.path)
            return [line for note in notes for line in _close(store, note)]


def _require_read(found: Verification) -> None:
    """Refuse to take for damaged what cannot be read: it may be whole, and hours of a GPU."""
    unread = [finding for finding in found.findings if finding.unread]
    if unread:
        more = f", and {len(unread) - 1:,} more" if len(unread) > 1 else ""
        raise InputError(
            f"{found.path}/{unread[0].line}{more}; nobody knows whether that is damaged, so nothing "
            "was moved: make it readable, or try again when its disk is well"
        )


def _info(store: RunFolder) -> RunInfo:
    info, _ = check_info(store, check_digests(store)[0])
    if info is None:
        raise InputError(
            f"{store.path}/run.json: cannot be made again: nothing else has the settings; "
            "put back a copy of it, or run the sweep into another folder"
        )
    unknown = evaluate.unknown_line(info)
    if unknown:
        raise InputError(f"{store.path}: {unknown}; install it to repair the run")
    return info


def _settings(
    store: RunFolder, info: RunInfo, data_root: str | None, device: str | None, progress: bool
) -> tuple[SweepConfig, list[CheckpointConfig]]:
    config, definitions = recorded(info.config)
    data = dataclasses.replace(config.data, root=data_root or config.data.root)
    return dataclasses.replace(
        config,
        data=data,
        device=device or config.device,
        out=str(store.path),
        dry_run=False,
        progress=progress,
    ), definitions


def _require_data(config: SweepConfig, definitions: list[CheckpointConfig], info: RunInfo) -> Any:
    """Return the data set of the run, or refuse before anything is moved."""
    from sd2eval.dataset import load_dataset

    dataset = load_dataset(config.data, config.prompts, definitions)
    if dataset.captions_digest != info.identity_fields.get("data.captions_sha256", dataset.captions_digest):
        raise InputError(
            f"data.root={config.data.root}: its captions are not those of the run; give data.root="
        )
    return dataset


def _mend(store: RunFolder, info: RunInfo, plan: Plan, pixels: dict[str, Path]) -> None:
    """Write again what needs neither networks nor data: the record, PNGs whose pixels are there, sheets."""
    if "record" in plan.written:
        store.write_info(info)
    if "digests" in plan.written:
        store.renew_digests(info)
    # Read before any is written: two PNGs may have changed places.
    read = {digest: load_rgb(_now(store, plan.note, file)) for digest, file in pixels.items()}
    for finding in plan.pngs:
        write_png(store.path / finding.path, read[finding.sha256], fsync=True)
    for path, sheet in plan.sheets.items():
        write_png(store.path / path, sheet, fsync=True)


def _now(store: RunFolder, note: Note, file: Path) -> Path:
    moved = quarantine.place(store, note, file.relative_to(store.path).as_posix())
    return moved if moved.exists() else file


def _sweep(config: SweepConfig, definitions: list[CheckpointConfig], notes: Sequence[Note]) -> None:
    """Run the sweep of the run; blocks are cut as they were, so that batches are the same ones."""
    from sd2eval.sweep import sweep

    sizes = [note.shard_size for note in notes if note.shard_size]
    sweep(dataclasses.replace(config, shard_size=max([*sizes, 0]) or config.shard_size), definitions)


def _close(store: RunFolder, note: Note) -> list[str]:
    """Say what came of each thing that was damaged, and whether it is what it was before."""
    lines = []
    for path in note.damaged:
        there = (store.path / path).exists()
        moved = path in note.moved or any(path.startswith(f"{one}/") for one in note.moved)
        kept = f"; what was there lies in {quarantine.FOLDER}/{note.name}" if moved else ""
        lines.append(f"{path}: {'made again' if there else 'moved aside'}{kept}")
        if path.startswith("sessions/"):
            lines.append(f"{path}: cannot be made again; the energy it recorded is in no table any more")
    lines += _differences(store, note)
    note.outcome = lines
    quarantine.write(store, note)
    return lines


def _differences(store: RunFolder, note: Note) -> Iterator[str]:
    """Yield where what was made again is not what it was."""
    before = {(key, one.caption_id, one.guidance_scale): one for key, one in quarantine.records(store, note)}
    shards = sorted({key for key, _, _ in before})
    for shard in shards:
        checkpoint = shard.partition("/")[0]
        now = {
            (image["caption_id"], image["guidance_scale"]): image["sha256"]
            for block in store.blocks(checkpoint)
            for image in store.read_manifest(checkpoint, block)["images"]
        }
        pairs = [
            (one.sha256, now.get((caption, scale)))
            for (key, caption, scale), one in before.items()
            if key == shard
        ]
        missing = sum(new is None for _, new in pairs)
        if missing:
            yield f"shards/{shard}: not drawn again yet; the sweep of this run draws it when it goes on"
            continue
        others = sum(old != new for old, new in pairs)
        if others:
            yield (
                f"shards/{shard}: {others} of {len(pairs)} images have other pixels than before: "
                "another machine, device or library drew them"
            )
    now_files = store.read_digests().get("files", {})
    for name in set(note.moved) & note.files.keys():
        if name in now_files and now_files[name] != note.files[name]:
            yield f"{name}: is not what it was before: another machine, data set or library made it"
