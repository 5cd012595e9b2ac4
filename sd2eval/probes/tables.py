"""What `probe` prints: the answers in plain language, a table of the wholes, where everything lies."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from sd2eval import answers, terminal
from sd2eval.probes import registry
from sd2eval.probes.records import Measured, by_probe
from sd2eval.probes.run import ProbeRun
from sd2eval.probes.written import BLURRED, blurred, energy, energy_line, interval, number

WIDTH = 120
"""Columns of what does not go to a terminal."""


def show(run: ProbeRun) -> None:
    """Print the answers of the probes that were asked for."""
    console = terminal.console(WIDTH)
    for name, group in by_probe(run.answers):
        _answer(console, name, group)
    _table(console, run.answers)
    console.print()
    for line in [*(f"left out: {line}" for line in run.left_out), *(f"joined: {line}" for line in run.notes)]:
        answers.say(console, line, "yellow")
    if any(blurred(run, one) for one in run.answers):
        answers.say(console, BLURRED)
    console.print(f"energy of drawing and measuring: {energy_line(energy(run.path, run.measured))}")
    for name in ("probes.csv", "probes.md", "probes.json", "probes/sheets"):
        if (run.path / name).exists():
            console.print(f"  {run.path / name}", highlight=False, soft_wrap=True)


def _answer(console: Console, name: str, group: Sequence[Measured]) -> None:
    answers.say(console, f"{name}: {registry.find(name).question}", "bold")
    for one in group:
        answers.say(console, f"{one.checkpoint}: {' '.join(one.sentences)}")
    console.print()


def _table(console: Console, asked: Sequence[Measured]) -> None:
    table = answers.empty_table(
        "probe",
        "checkpoint",
        "metric",
        "value",
        "95% interval",
        "n",
        "unit",
        left=("probe", "checkpoint", "metric", "unit"),
    )
    for one in asked:
        for row in [row for row in one.rows if not row["part"]] or one.rows[:1]:
            value = number(row["value"]) or "unreliable"
            where = f"{row['metric']} ({row['part']})" if row["part"] else row["metric"]
            table.add_row(one.probe, one.checkpoint, where, value, interval(row), str(row["n"]), row["unit"])
    terminal.show_whole(console, terminal.keep_whole(table))
