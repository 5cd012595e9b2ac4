"""A run folder to its tables and figure, and back to a DataFrame. Needs no torch, no GPU, no weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from sd2eval import evaluate, front, plots, tables, terminal
from sd2eval.errors import writing
from sd2eval.evaluate import Measured
from sd2eval.floors import floors
from sd2eval.lock import Busy
from sd2eval.pareto import roles
from sd2eval.progress import format_co2, format_energy
from sd2eval.records import EmissionRow, ImageRecord, RunInfo, Score
from sd2eval.store import DIGESTS, RunFolder
from sd2eval.transfer.digests import file_digest

LOG = logging.getLogger("sd2eval")
"""Without handlers of the reader's own, Python prints its warnings to stderr as they are."""
INDEX = "report.json"
"""Sealed: the SHA-256 of every file that a report writes."""
CELL = ["checkpoint", "guidance_scale"]
REPORT_WIDTH = 120
"""Columns of a table that does not go to a terminal."""


@dataclass(frozen=True)
class Run:
    """A run folder, read lazily."""

    path: Path
    info: RunInfo

    @cached_property
    def results(self) -> pd.DataFrame:
        """Scores, tidy: the columns of `Score`, one row per cell and metric."""
        return pd.read_csv(self.path / "results.csv")

    @cached_property
    def unscored(self) -> list[dict[str, Any]]:
        """Scores that finished cells lack, as fields of `evaluate.Unscored`."""
        written = json.loads((self.path / "results.json").read_text())
        return written.get("unscored", [])  # type: ignore[no-any-return]

    @cached_property
    def emissions(self) -> pd.DataFrame:
        """Energy by cell and stage: the columns of `EmissionRow`."""
        return pd.read_csv(self.path / "emissions.csv", keep_default_na=False, na_values=[""])

    @cached_property
    def front(self) -> pd.DataFrame:
        """The Pareto front with its uncertainty: the columns of `pareto.csv`; no rows where there is none."""
        file = self.path / "pareto.csv"
        return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=front.COLUMNS)

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """The prompts in order: caption_id, image_id, image_file, text."""
        return pd.DataFrame(RunFolder(self.path).read_prompts())


def load_run(path: str | Path) -> Run:
    """Return a run folder's record, ready to read; metrics that are unknown here are said in one line.

    Raises:
        InputError: there is no run, or it has no results yet.
    """
    folder = RunFolder.at(path)
    info = folder.read_info()
    return _opened(Run(folder.path, info)) if folder.has("results.csv") else write_report(folder.path)


def _opened(run: Run) -> Run:
    unknown = evaluate.unknown_line(run.info)
    if unknown:
        LOG.warning("sd2eval: %s: %s", run.path, unknown)
    return run


def write_report(path: str | Path) -> Run:
    """Write a run's tables and figure again, from what is there now, and return it.

    While a sweep is writing there, the scores are computed and nothing is written, which is said in one line.

    Raises:
        InputError: there is no run, or it cannot be written.
        Stopped: the disk is full.
    """
    store = RunFolder.at(path)
    run = Run(store.path, store.read_info())
    try:
        with writing(), store.lock():
            write_tables(store.path)
    except Busy as busy:
        LOG.warning("sd2eval: %s: a sweep is writing here (%s); nothing is written", run.path, busy.holder)
        _compute(run, store)
    return _opened(run)


def _compute(run: Run, store: RunFolder) -> None:
    """Give a run the tables that a report would write, in place of those in its folder."""
    measured = evaluate.measure(store, run.info)
    results, lacking = _scores(store, run.info, measured)
    none = pd.DataFrame(columns=front.COLUMNS)
    vars(run).update(  # where cached properties keep what they read
        results=results,
        unscored=lacking,
        emissions=_emissions_frame(evaluate.emissions(store, run.info)),
        front=front.front_table(measured) if _has_figure(results) else none,
    )


def _scores(
    store: RunFolder, info: RunInfo, measured: Sequence[Measured]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return the scores as a table, and those that finished cells lack."""
    lacking = [asdict(one) for one in evaluate.unscored(store, info, measured)]
    return tables.results_frame([*(one.score for one in measured), *_kept(store, info)]), lacking


def _emissions_frame(rows: Sequence[EmissionRow]) -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(EmissionRow)])


def write_tables(path: str | Path, measured: Sequence[Measured] | None = None) -> None:
    """Write `results.*`, `emissions.csv` and the front of a run, complete or not, for whoever holds its lock.

    Args:
        path: the run folder.
        measured: what `evaluate.measure` gave, if it was computed already.
    """
    store = RunFolder.at(path)
    info = store.read_info()
    if measured is None:
        measured = evaluate.measure(store, info)
    results, lacking = _scores(store, info, measured)
    emissions = evaluate.emissions(store, info)
    reopen(store)
    written = [
        store.write_json(
            "results.json",
            {
                "schema_version": info.schema_version,
                "scores": results.to_dict("records"),
                "unscored": lacking,
            },
        ),
        store.write_text("emissions.csv", _emissions_frame(emissions).to_csv(index=False)),
    ]
    if _has_figure(results):
        table = front.front_table(measured)
        written.append(store.write_text("pareto.csv", table.to_csv(index=False)))
        figure = plots.pareto_figure(
            results,
            published=plots.published_curves(),
            chances=front.chances(table),
            planned=len(evaluate.planned_cells(info)),
            energy_note=energy_note(emissions),
            title=_title(info),
            floors=floors(store.path, results, info),
        )
        written += plots.save(figure, store.path / "pareto")
    # After these, because a complete results.csv says that everything else is there.
    written.insert(0, store.write_text("results.csv", results.to_csv(index=False)))
    store.write_sealed(INDEX, {"files": {file.name: file_digest(file) for file in written}})


def reopen(store: RunFolder) -> None:
    """Say that tables and figure are to be written anew: where the index is, they are whole and add up."""
    (store.path / INDEX).unlink(missing_ok=True)


def ended(store: RunFolder) -> bool:
    """Whether tables and figure were written to the end; the first version of the package wrote no index."""
    return store.has("results.csv") and (store.has(INDEX) or not store.has(DIGESTS))


def _kept(store: RunFolder, info: RunInfo) -> list[Score]:
    """Return the written scores of metrics that are unknown here: nobody could compute them again."""
    unknown = evaluate.unknown_metrics(info)
    if not unknown or not store.has("results.json"):
        return []
    written = json.loads((store.path / "results.json").read_text())["scores"]
    return [Score(**score) for score in written if score["metric"] in unknown]


def _has_figure(results: pd.DataFrame) -> bool:
    """Whether there is something to draw: a distance and a score, which a protocol need not have."""
    return {"distance", "score"} <= roles(results).keys()


def show(run: Run) -> None:
    """Print the table of a run and where everything is."""
    console = terminal.console(REPORT_WIDTH)
    store = RunFolder(run.path)
    emissions = evaluate.emissions(store, run.info)
    if run.results.empty:
        console.print("no cell is complete yet")
    else:
        kwh, chances = kwh_by_cell(emissions), front.chances(run.front)
        shown = tables.terminal_table(run.results, kwh, chances=chances, title=_title(run.info))
        terminal.show_whole(console, shown)
        for table in tables.further_terminal_tables(run.results):
            terminal.show_whole(console, "", table)
    lacking = _too_few(run)
    for line in lacking.values():
        console.print(line, markup=False)
    planned = len(evaluate.planned_cells(run.info))
    scored = len({*lacking, *run.results.groupby(CELL).groups})
    if scored < planned:
        console.print(f"{scored} of {planned} cells are complete; run the sweep again to continue")
    for line in _unreached(run):
        console.print(line)
    _warn(console, list(evaluate.image_records(store, run.info)))
    for note in _notes(store, run):
        console.print(f"noted: {note}", markup=False)
    console.print(f"energy: {energy_note(emissions)}")
    if not (run.results.empty or _has_figure(run.results)):
        console.print("no figure: it takes a distance and a score among protocol.metrics")
    for name in (
        "results.csv",
        "emissions.csv",
        "pareto.csv",
        "pareto.png",
        "pareto.svg",
        "sheets",
        "images",
    ):
        if store.has(name):
            console.print(f"  {run.path / name}", highlight=False, soft_wrap=True)


def _notes(store: RunFolder, run: Run) -> list[str]:
    """Return once what processes noted, such as too little memory, and floors not measured like the run."""
    noted = [note for session in store.read_sessions() for note in session.get("notes", ())]
    if not run.results.empty:
        noted += floors(store.path, run.results, run.info).left_out
    return list(dict.fromkeys(noted))


def _too_few(run: Run) -> dict[tuple[str, float], str]:
    """Return a line for each finished cell that lacks scores because of invalid images."""
    lacking: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for one in run.unscored:
        lacking.setdefault((one["checkpoint"], one["guidance_scale"]), []).append(one)
    return {
        (checkpoint, scale): f"{checkpoint} at scale {scale:g} has {ones[0]['n']} valid images, too few for "
        + ", ".join(one["metric"] for one in ones)
        for (checkpoint, scale), ones in lacking.items()
    }


def _unreached(run: Run) -> list[str]:
    """Return a line for each asked precision that finished cells lack, because their captions ran out."""
    lines = []
    for metric, target in run.info.config.get("precision", {}).items():
        rows = run.results[run.results["metric"] == metric]
        short = rows[~((rows["stderr"] > 0) & (rows["stderr"] <= target))]
        if len(short):
            errors = (
                f"up to {short['stderr'].max():.2g}" if short["stderr"].max() > 0 else "0, which says nothing"
            )
            lines.append(
                f"precision.{metric}={target:g} is not reached by {len(short)} of {len(rows)} cells "
                f"(standard error {errors}): all {short['n'].max():,} captions are used"
            )
    return lines


def _warn(console: Console, records: Sequence[ImageRecord]) -> None:
    """Count what a reader of the scores must know about the images behind them."""
    invalid = sum(record.invalid != "" for record in records)
    if invalid:
        console.print(f"{invalid} images are invalid and in no score; the manifests in shards/ name them")
    cut = len({record.caption_id for record in records if record.truncated})
    if cut:
        console.print(
            f"{cut} captions are longer than the text encoder's context and were cut, as the original does"
        )


def energy_note(rows: Sequence[EmissionRow]) -> str:
    """Return a run's energy in one phrase, such as `12.3 Wh, 4.5 g CO2 (estimated, grid USA)`."""
    if not rows:
        return ""
    kwh, kg_co2 = sum(row.kwh for row in rows), sum(row.kg_co2 for row in rows)
    method = "estimated" if any(row.method == "estimated" for row in rows) else "measured"
    return f"{format_energy(kwh)}, {format_co2(kg_co2)} ({method}, grid {rows[0].grid})"


def kwh_by_cell(rows: Sequence[EmissionRow]) -> dict[tuple[str, float], float]:
    """Return the energy of each cell over its stages, in kWh."""
    totals: dict[tuple[str, float], float] = {}
    for row in rows:
        if row.guidance_scale is not None:
            key = (row.checkpoint, row.guidance_scale)
            totals[key] = totals.get(key, 0.0) + row.kwh
    return totals


def _title(info: RunInfo) -> str:
    sampler = info.config["sampler"]
    reference = f"{info.reference_n:,} reference images"
    return f"{info.config['protocol']['name']} protocol, {sampler['steps']} DDIM steps, {reference}"
