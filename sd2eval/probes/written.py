"""What a folder of probes shows: probes.csv, probes.md, probes.json and one contact sheet per probe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sd2eval.images import load_rgb, write_png
from sd2eval.probes import contact, records, registry
from sd2eval.probes.records import Measured, by_probe
from sd2eval.progress import format_co2, format_energy
from sd2eval.seals import to_bytes
from sd2eval.store import RunFolder, write_bytes

if TYPE_CHECKING:
    from sd2eval.probes.run import ProbeRun

SHEETS = "probes/sheets"
BLURRED = "The pictures of the sheet are blurred; blur=false shows them."


def write(run: ProbeRun) -> None:
    """Write everything from the folder's measurements; what this call did not measure stays as it is."""
    table = records.frame(run.measured)
    write_bytes(run.path / "probes.csv", table.to_csv(index=False).encode())
    sheets = {name: _sheet(run, group) for name, group in by_probe(run.measured)}
    spent = energy(run.path, run.measured)
    write_bytes(run.path / "probes.json", to_bytes(_provenance(run, spent)))
    write_bytes(run.path / "probes.md", _markdown(run, sheets, spent).encode())


def _sheet(run: ProbeRun, group: Sequence[Measured]) -> str:
    """Write the contact sheet of a probe, one section per checkpoint; return its name, or nothing."""
    sections = [load_rgb(file) for one in group if (file := _section_file(run, one)).exists()]
    if not sections:
        return ""
    name = f"{SHEETS}/{group[0].probe}.png"
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    write_png(run.path / name, contact.stacked(sections))
    return name


def _section_file(run: ProbeRun, one: Measured) -> Path:
    """Return the blurred part of a sheet where there is one and it is wanted, else the clear one."""
    return records.sheet(run.path, one.stem, blurred=blurred(run, one))


def blurred(run: ProbeRun, one: Measured) -> bool:
    """Whether the pictures of a measurement are blurred on its sheet."""
    return run.blur and records.sheet(run.path, one.stem, blurred=True).exists()


def energy(out: Path, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return what drawing and measuring spent, as rows of checkpoint, probe and the keys of a reading.

    A picture that several probes look at is drawn once, so drawing belongs to no probe.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted((out / "probes" / "drawn").glob("*/*/run.json")):
        store = RunFolder(file.parent)
        for name in store.read_info().config["checkpoint_definitions"]:
            readings = [
                reading
                for block in store.blocks(name)
                for reading in store.read_manifest(name, block)["energy"]
            ]
            rows += [{"checkpoint": name, "probe": ""} | reading for reading in readings]
        for session in store.read_sessions():
            rows += [{"probe": ""} | reading for reading in session["readings"]]
    for one in measured:
        rows += [{"checkpoint": one.checkpoint, "probe": one.probe} | reading for reading in one.energy]
    return rows


def energy_line(rows: Sequence[dict[str, Any]]) -> str:
    """Return the energy in one phrase, such as `1.2 Wh, 0.5 g CO2 (estimated)`."""
    kwh, kg = (math.fsum(row[key] for row in rows) for key in ("kwh", "kg_co2"))
    method = "measured" if rows and all(row["method"] == "measured" for row in rows) else "estimated"
    return f"{format_energy(kwh)}, {format_co2(kg)} ({method})"


def _provenance(run: ProbeRun, spent: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema_version": records.SCHEMA_VERSION,
        "left_out": run.left_out,
        "energy": list(spent),
        "measurements": [
            {
                "probe": one.probe,
                "checkpoint": one.checkpoint,
                "guidance_scale": one.guidance_scale,
                "identity": one.identity,
                "prompts": one.prompts,
                "digests": one.digests,
                "lacking": one.lacking,
                "fields": one.fields,
                "joined": run.differences.get(one.stem, []),
                "versions": one.versions,
                "machine": one.machine,
                "git": one.git,
                "created": one.created,
            }
            for one in run.measured
        ],
    }


def _markdown(run: ProbeRun, sheets: dict[str, str], spent: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# The card's limitations and biases, measured",
        "",
        "Every number has a 95% interval, from the prompts (clustered where they belong together).",
        "`probes.csv` has all rows, `probes.json` what each rests on.",
        "",
    ]
    for name, group in by_probe(run.measured):
        lines += _section(run, name, group, sheets[name])
    if run.left_out:
        lines += ["## Not measured", "", *(f"- {line}" for line in run.left_out), ""]
    otherwise = list(_differences(run))
    if otherwise:
        lines += ["## Measured otherwise than the run in this folder", "", *otherwise, ""]
    return "\n".join([*lines, f"Energy of drawing and measuring: {energy_line(spent)}.", ""])


def _differences(run: ProbeRun) -> Iterator[str]:
    """Yield a line for each way in which a probe's answers differ from the run; says whose, if not all do."""
    for name, group in by_probe(run.measured):
        lines = [line for one in group for line in run.differences.get(one.stem, ())]
        for line in dict.fromkeys(lines):
            of = [one.who for one in group if line in run.differences.get(one.stem, ())]
            some = "" if len(of) == len(group) else f" ({'; '.join(of)})"
            yield f"- {name}{some}: {line}"


def _section(run: ProbeRun, name: str, group: Sequence[Measured], sheet: str) -> list[str]:
    probe = registry.find(name) if name in registry.names() else None
    lines = [f"## {name}", ""]
    if probe:
        lines += [f'The card: "{probe.sentence}"', "", f"**{probe.question}**", ""]
    for one in group:
        lines += [f"- {_who(run, one)}: {' '.join(one.sentences)}"]
    lines += ["", "| part | checkpoint | metric | value | 95% interval | n | error | by | note |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    lines += [_row(one, row) for one in group for row in one.rows]
    lines += _sources(group)
    if any(blurred(run, one) for one in group):
        lines += ["", BLURRED]
    return [*lines, "", *([f"![{name}]({sheet})", ""] if sheet else [])]


def _who(run: ProbeRun, one: Measured) -> str:
    """Return checkpoint and scale of an answer, and whether an earlier call gave it."""
    return f"{one.who}{'' if one.stem in run.answered else ' (of an earlier call)'}"


def _sources(group: Sequence[Measured]) -> list[str]:
    """Return a line for each set of prompts that the answers rest on."""
    sets: dict[str, list[Measured]] = {}
    for one in group:
        if one.prompts["n"]:
            sets.setdefault(one.prompts["digest"] + str(one.prompts["n"]), []).append(one)
    lines = []
    for of in sets.values():
        told = of[0].prompts
        who = "" if len(sets) == 1 else f" of {'; '.join(one.who for one in of)}"
        lines += [
            "",
            f"Prompts{who}: {told['n']}, {told['source']} ({told['licence']}), `{told['digest'][:12]}`.",
        ]
    return lines


def _row(one: Measured, row: dict[str, Any]) -> str:
    unit = f" {row['unit']}" if row["unit"] else ""
    cells = [
        row["part"],
        one.who,
        row["metric"],
        number(row["value"]) + (unit if row["value"] is not None else ""),
        interval(row),
        str(row["n"]),
        number(row["error"]),
        row["component"],
        row["note"],
    ]
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Return text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def number(value: float | None) -> str:
    """Return four significant digits; nothing where there is no number."""
    return "" if value is None or not np.isfinite(value) else f"{value:.4g}"


def interval(row: dict[str, Any]) -> str:
    """Return `low to high` of a row; nothing where it has none."""
    low, high = number(row["low"]), number(row["high"])
    return f"{low} to {high}" if low and high else ""
