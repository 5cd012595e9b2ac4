"""The floor of the plot: of the plot's own distance and protocol, of the run's own checkpoints."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.colors import to_rgb

from sd2eval.floors import floors
from sd2eval.plot_curves import styles
from sd2eval.plots import pareto_figure
from tests.test_plots import FAMILY, main_axes, run

RESULTS = run(FAMILY)


def written(folder: Path, *rows: tuple[str, str, str, str]) -> Path:
    columns = ["probe", "checkpoint", "metric", "protocol", "value"]
    values = [[*row, value] for row, value in zip(rows, (0.5, 0.7, 0.9), strict=False)]
    pd.DataFrame(values, columns=columns).to_csv(folder / "probes.csv", index=False)
    return folder


def test_no_probes_have_no_floor(tmp_path: Path) -> None:
    assert floors(tmp_path, RESULTS) == {}


def test_a_floor_is_that_of_the_plots_distance(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        ("autoencoder", "512-base", "rfd_mini", "mini@2"),
        ("autoencoder", "768-v", "rfid", "mini@2"),
        ("autoencoder", "elsewhere", "rfd_mini", "mini@2"),
    )
    assert floors(folder, RESULTS) == {"512-base": 0.5}


def test_a_floor_of_another_protocol_is_none(tmp_path: Path) -> None:
    folder = written(tmp_path, ("autoencoder", "512-base", "rfd_mini", "mini_native@2"))
    assert floors(folder, RESULTS) == {}


def test_a_floor_is_a_line_that_the_panel_reaches_down_to() -> None:
    axes = main_axes(pareto_figure(RESULTS, floors={"512-base": 0.5}))
    plain = main_axes(pareto_figure(RESULTS))
    (line,) = [line for line in axes.lines if line.get_linestyle() == ":" and set(line.get_ydata()) == {0.5}]
    colour = styles(RESULTS["checkpoint"].unique())["512-base"].colour
    assert to_rgb(line.get_color()) == to_rgb(colour)
    assert axes.get_ylim()[0] < 0.5 < plain.get_ylim()[0]
    assert axes.get_ylim()[1] == plain.get_ylim()[1]
