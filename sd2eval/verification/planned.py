"""What a repair is going to do: which files are moved aside, and what is made again from what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sd2eval.errors import InputError
from sd2eval.images import Pixels, load_rgb
from sd2eval.plan import Block, Cell
from sd2eval.records import ImageRecord, RunInfo
from sd2eval.run_tables import INDEX
from sd2eval.sheet import contact_sheet
from sd2eval.store import RunFolder
from sd2eval.verification import quarantine
from sd2eval.verification.findings import Finding, Part, Verification
from sd2eval.verification.png import pixels_digest, png_fault
from sd2eval.verification.quarantine import Note
from sd2eval.verification.record import check_digests

GROUND = ("record", "digests", "prompts")
DERIVED = (
    "results.csv",
    INDEX,
    "results.json",
    "emissions.csv",
    "pareto.csv",
    "pareto.png",
    "pareto.svg",
)
"""What is written at the end of a sweep, the first one first."""
SHEET_CAPTIONS = 8
"""Of a contact sheet, as in the sweep."""


@dataclass
class Plan:
    """What a repair is going to do."""

    note: Note
    written: set[Part]
    """Single files of the run that are written again without the sweep: record, digests, prompts."""
    pngs: list[Finding]
    """Whose pixels are in another file."""
    sheets: dict[str, Pixels]
    """By path, drawn from the PNGs."""

    @property
    def needs_data(self) -> bool:
        """Whether the data set is read."""
        return self.note.sample or "prompts" in self.written


def first_of(found: Verification) -> list[Finding]:
    """Return what is damaged and made again now: what was run, or where that is whole all the rest."""
    damaged = found.of("damaged")
    return [one for one in damaged if one.part in GROUND] or damaged


def pixels_at_hand(store: RunFolder, damaged: Sequence[Finding]) -> dict[str, Path]:
    """Return by the digest of their pixels the files whose pixels some damaged PNG should have."""
    wanted = {finding.sha256 for finding in damaged if finding.part == "png"}
    files = [store.path / finding.path for finding in damaged if finding.path.endswith(".png")]
    files += (store.path / quarantine.FOLDER).glob("*/images/*/*.png") if wanted else []
    found = {pixels_digest(file): file for file in files if file.is_file()} if wanted else {}
    return {digest: file for digest, file in found.items() if digest in wanted}


def planned(
    store: RunFolder,
    info: RunInfo,
    damaged: Sequence[Finding],
    pixels: dict[str, Path],
    *,
    was_finished: bool,
) -> Plan:
    """Decide for each finding; a shard that is drawn again takes its PNGs and its sheet along."""
    anew = {one.shard for one in damaged if one.part == "shard"}
    anew |= {one.shard for one in damaged if one.part == "png" and one.sha256 not in pixels}
    sheets = {one.shard: one for one in damaged if one.part == "sheet" and one.shard not in anew}
    shown = {key: _shown(store, info, key) for key in sheets}
    anew |= {key for key, images in shown.items() if images is None}
    sampled = bool(anew) or any(one.part == "reference" for one in damaged)
    tables = not sampled and any(one.part in ("table", "session", "extra") for one in damaged)
    # First: were the repair killed after it moved a shard, a sweep would take the run for finished.
    paths = list(DERIVED if sampled else (INDEX,) if tables else ())
    paths += [path for key in sorted(anew) for path in _of_shard(store, info, key)]
    paths += [one.path for one in damaged if one.part != "shard"]
    blocks = [len(Block.parse(key.split("/")[1])) for key in anew if (store.path / "shards" / key).is_dir()]
    finish = was_finished or any(note.sample for note in quarantine.open_notes(store))
    note = Note(
        name=quarantine.new_name(store),
        damaged={one.path: one.what for one in damaged},
        moved=[path for path in dict.fromkeys(paths) if (store.path / path).exists()],
        sample=sampled and finish,
        tables=tables,
        shard_size=max(blocks, default=None),
        files=check_digests(store)[0].get("files", {}),
    )
    return Plan(
        note,
        {one.part for one in damaged if one.part in GROUND},
        [one for one in damaged if one.part == "png" and one.shard not in anew],
        {one.path: images for key, one in sheets.items() if (images := shown[key]) is not None},
    )


def _of_shard(store: RunFolder, info: RunInfo, key: str) -> Iterator[str]:
    """Yield what belongs to a shard: its folder, the PNGs of its captions, the sheet with the first one."""
    checkpoint, _, name = key.partition("/")
    block = Block.parse(name)
    yield f"shards/{key}"
    if block.first == 0:
        yield f"sheets/{checkpoint}.png"
    try:
        captions = [prompt["caption_id"] for prompt in store.read_prompts()][block.first : block.last + 1]
    except InputError:
        return
    for scale in info.config["guidance_scales"]:
        folder = store.image_folder(Cell(checkpoint, scale)).relative_to(store.path).as_posix()
        yield from (f"{folder}/{caption}.png" for caption in captions)


def _shown(store: RunFolder, info: RunInfo, shard: str) -> Pixels | None:
    """Return the contact sheet of a first shard, from its PNGs; None where one is not right."""
    checkpoint, _, name = shard.partition("/")
    manifest = store.read_manifest(checkpoint, Block.parse(name))
    scales = manifest["guidance_scales"]
    records = [ImageRecord(**image) for image in manifest["images"]][: SHEET_CAPTIONS * len(scales)]
    found: list[Pixels | None] = []
    for record in records:
        file = store.image_folder(Cell(checkpoint, record.guidance_scale)) / f"{record.caption_id}.png"
        if not record.invalid and png_fault(file, record.sha256):
            return None
        found.append(None if record.invalid else load_rgb(file))
    valid = next((image for image in found if image is not None), None)
    if valid is None:
        return None
    tiles = np.stack([np.zeros_like(valid) if image is None else image for image in found])
    texts = [prompt["text"] for prompt in store.read_prompts()][: len(records) // len(scales)]
    return contact_sheet(tiles.reshape(-1, len(scales), *valid.shape), texts, scales, checkpoint)
