"""A run folder to its tables and figure, and back to a DataFrame. Needs no torch, no GPU, no weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd
from rich.console import Console

from sd2eval import evaluate, front, plots, run_tables, tables, terminal
from sd2eval.errors import writing
from sd2eval.evaluate import Measured
from sd2eval.floors import floors
from sd2eval.lock import Busy, NoLocks
from sd2eval.pareto import roles
from sd2eval.progress import format_co2, format_energy
from sd2eval.records import EmissionRow, ImageRecord, RunInfo, Score
from sd2eval.run_tables import Run
from sd2eval.seals import to_bytes
from sd2eval.store import RunFolder, write_bytes

LOG = logging.getLogger("sd2eval")
"""Without handlers of the reader's own, Python prints its warnings to stderr as they are."""
CELL = ["checkpoint", "guidance_scale"]
REPORT_WIDTH = 120
"""Columns of a table that does not go to a terminal."""


@dataclass(frozen=True, eq=False)
class Report:
    """What is written of a run, computed from its shards and sessions as they were at one moment."""

    info: RunInfo
    results: pd.DataFrame
    unscored: list[dict[str, Any]]
    emissions: list[EmissionRow]
    front: pd.DataFrame | None
    """None where there is nothing to draw."""

    @classmethod
    def of(cls, store: RunFolder, measured: Sequence[Measured] | None = None) -> Self:
        """Compute it, which takes minutes of a large run.

        Args:
            store: the run.
            measured: what `evaluate.measure` gave, if it was computed already.

        Raises:
            InputError: there is no run, or something in it is damaged.
        """
        info = store.read_info()
        if measured is None:
            measured = evaluate.measure(store, info)
        results = tables.results_frame([*(one.score for one in measured), *_kept(store, info)])
        return cls(
            info,
            results,
            [asdict(one) for one in evaluate.unscored(store, info, measured)],
            evaluate.emissions(store, info),
            front.front_table(measured) if _has_figure(results) else None,
        )

    @property
    def tables(self) -> dict[str, bytes]:
        """By file name."""
        columns = [field.name for field in fields(EmissionRow)]
        emissions = pd.DataFrame([asdict(row) for row in self.emissions], columns=columns)
        scores = {
            "schema_version": self.info.schema_version,
            "scores": self.results.to_dict("records"),
            "unscored": self.unscored,
        }
        frames = {"results.csv": self.results, "emissions.csv": emissions}
        frames |= {} if self.front is None else {"pareto.csv": self.front}
        csv = {name: frame.to_csv(index=False).encode() for name, frame in frames.items()}
        return csv | {"results.json": to_bytes(scores)}


def load_run(path: str | Path) -> Run:
    """Return a run folder's record, ready to read; metrics that are unknown here are said in one line.

    Raises:
        InputError: there is no run, it has no results yet, or they are damaged.
    """
    return read_run(path) or write_report(path)


def read_run(path: str | Path) -> Run | None:
    """Return a run as its last report left it; None where none ended, so that tables are to be written.

    Raises:
        InputError: there is no run, or a table is damaged.
    """
    store = RunFolder.at(path)
    info = store.read_info()
    found = run_tables.read(store)
    return None if found is None else _opened(Run(store.path, info, found))


def _opened(run: Run) -> Run:
    unknown = evaluate.unknown_line(run.info)
    if unknown:
        LOG.warning("sd2eval: %s: %s", run.path, unknown)
    return run


@writing()
def write_report(path: str | Path) -> Run:
    """Write a run's tables and figure again, from what is there now, and return it.

    While a sweep is writing there, and where nobody can hold the folder because its file system has no locks,
    the scores are computed and nothing is written, which is said in one line.

    Raises:
        InputError: there is no run, or it cannot be written.
        Stopped: the disk is full.
    """
    store = RunFolder.at(path)
    # Without the lock, because of a large run it takes minutes, in which a sweep could not go on.
    before, found = run_tables.inputs(store), Report.of(store)
    try:
        with store.lock("report"):
            if run_tables.inputs(store) != before:
                found = Report.of(store)
            _write(store, found)
    except Busy as busy:
        LOG.warning("sd2eval: %s; nothing is written", busy.state)
    except NoLocks as none:
        LOG.warning("sd2eval: %s; nothing is written", none)
    return _opened(Run(store.path, found.info, found.tables))


def write_tables(path: str | Path, measured: Sequence[Measured] | None = None) -> None:
    """Write `results.*`, `emissions.csv` and the front of a run, complete or not, for whoever holds its lock.

    Args:
        path: the run folder.
        measured: what `evaluate.measure` gave, if it was computed already.
    """
    store = RunFolder.at(path)
    _write(store, Report.of(store, measured))


def _write(store: RunFolder, found: Report) -> None:
    run_tables.reopen(store)
    contents = found.tables
    last = store.path / "results.csv"  # because a complete one says that everything else is there
    written = [write_bytes(store.path / name, raw) for name, raw in contents.items() if name != last.name]
    if found.front is not None:
        figure = plots.pareto_figure(
            found.results,
            published=plots.published_curves(),
            chances=front.chances(found.front),
            planned=len(evaluate.planned_cells(found.info)),
            energy_note=energy_note(found.emissions),
            title=_title(found.info),
            floors=floors(store.path, found.results, found.info),
        )
        written += plots.save(figure, store.path / "pareto")
    run_tables.close(store, [write_bytes(last, contents[last.name]), *written])


def _kept(store: RunFolder, info: RunInfo) -> list[Score]:
    """Return the written scores of metrics that are unknown here: nobody could compute them again."""
    unknown = evaluate.unknown_metrics(info)
    written = run_tables.written_scores(store) if unknown else []
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
