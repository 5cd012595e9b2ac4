import hashlib
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

from sd2eval.errors import InputError
from sd2eval.metrics import METRICS
from sd2eval.pareto import cells
from sd2eval.plot_curves import INK, styles
from sd2eval.plots import pareto_figure, published_curves, save

SCALES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def run(
    curves, *, metrics=("fd_mini", "clip_mini"), scales=SCALES, stderr=(0.05, 0.001), protocol="mini@1"
) -> pd.DataFrame:
    """Results of a run: checkpoint -> (shift of score, shift of distance, size of the curve)."""
    rows = []
    for name, (dx, dy, size) in curves.items():
        for scale in scales:
            score = 0.65 + dx - size * 0.03 * np.exp(1 - scale)
            distance = 3 + dy + size * (np.exp(1.5 - scale) + 0.03 * scale)
            for metric, value, error in zip(metrics, (distance, score), stderr, strict=True):
                declared = METRICS[metric]
                rows.append(
                    (name, scale, metric, value, error, 64, declared.direction, declared.unit, protocol)
                )
    columns = [
        "checkpoint",
        "guidance_scale",
        "metric",
        "value",
        "stderr",
        "n",
        "direction",
        "unit",
        "protocol",
    ]
    return pd.DataFrame(rows, columns=columns)


FAMILY = {"512-base": (0, 0, 1), "768-v": (0.004, -0.2, 1), "512-depth": (0.008, -0.5, 1)}


@pytest.fixture(scope="module")
def family() -> Figure:
    return pareto_figure(run(FAMILY), energy_note="0.01 kWh (estimated)", title="Mini")


def main_axes(figure):
    return next(axes for axes in figure.axes if axes.get_xlabel())


def lines(axes, joined: bool) -> list[Line2D]:
    return [line for line in axes.lines if (line.get_linestyle() != "None") == joined]


def points(axes, filled: bool) -> set[tuple[float, float]]:
    found = [line for line in lines(axes, joined=False) if (line.get_markerfacecolor() != "white") == filled]
    return {(round(x, 9), round(y, 9)) for line in found for x, y in line.get_xydata()}


def labels(axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def legend_labels(figure) -> list[str]:
    return [
        text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()
    ]


def words(figure) -> str:
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    return " ".join([*(text.get_text() for text in figure.texts), *titles])


def test_every_cell_is_drawn_once_and_curves_follow_the_scale(family):
    axes = main_axes(family)
    drawn = points(axes, True) | points(axes, False)
    assert len(drawn) == 24
    assert [len(line.get_xdata()) for line in lines(axes, joined=True)] == [8, 8, 8]
    for line in lines(axes, joined=True):
        assert (np.diff(line.get_xdata()) > 0).all()  # in this data the score rises with the scale
        assert {(round(x, 9), round(y, 9)) for x, y in line.get_xydata()} <= drawn


def test_shuffled_results_give_the_same_curves(family):
    shuffled = run(FAMILY).sample(frac=1, random_state=3)
    curves = {tuple(line.get_xdata()) for line in lines(main_axes(pareto_figure(shuffled)), joined=True)}
    assert curves == {tuple(line.get_xdata()) for line in lines(main_axes(family), joined=True)}


def test_front_is_filled_and_ringed(family):
    front = points(main_axes(family), filled=True)
    others = points(main_axes(family), filled=False)
    assert front
    assert not front & others
    for x, y in others:
        assert any(fx >= x and fy <= y for fx, fy in front)
    for (x, y), (ox, oy) in itertools.permutations(front, 2):
        assert not (x >= ox and y <= oy)


def test_error_bars_are_one_standard_error_both_ways():
    figure = pareto_figure(run({"512-base": (0, 0, 1)}, scales=(3.0,), stderr=(0.25, 0.002)))
    bars = [bar for group in main_axes(figure).collections for bar in group.get_segments()]
    assert sorted(tuple(np.ptp(bar, axis=0).round(9)) for bar in bars) == [(0, 0.5), (0.004, 0)]


def test_every_point_is_labelled_with_its_scale(family):
    found = sorted(float(text.get_text()) for text in labels(main_axes(family)))
    assert found == sorted(3 * SCALES)


@pytest.mark.parametrize("count", [1, 3])
def test_labels_keep_clear_of_each_other_of_the_points_and_of_the_edge(count):
    figure = pareto_figure(run(dict(list(FAMILY.items())[:count])))
    axes = main_axes(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in labels(axes):
        text.update_positions(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in labels(axes)]  # without the hair line
    marks = axes.transData.transform(sorted(points(axes, True) | points(axes, False)))
    overlaps = sum(
        a.shrunk(0.8, 0.8).overlaps(b.shrunk(0.8, 0.8)) for a, b in itertools.combinations(boxes, 2)
    )
    assert overlaps == 0
    assert sum(box.shrunk(0.8, 0.8).contains(*mark) for box in boxes for mark in marks) == 0
    assert all(box.x0 >= axes.bbox.x0 - 2 and box.y0 >= axes.bbox.y0 - 2 for box in boxes)


def test_checkpoints_differ_without_colour():
    figure = pareto_figure(run({f"c{i}": (i / 300, -i / 5, 1) for i in range(7)}))
    handles = next(axes.get_legend().legend_handles for axes in figure.axes if axes.get_legend())[:7]
    assert len({handle.get_marker() for handle in handles}) == 7
    assert len({handle.get_color() for handle in handles}) == 7


def test_words_name_metrics_direction_n_protocol_and_energy(family):
    axes = main_axes(family)
    assert "CLIP (mini)" in axes.get_xlabel()
    assert "higher is better" in axes.get_xlabel()
    assert "FD (mini)" in axes.get_ylabel()
    assert "lower is better" in axes.get_ylabel()
    for part in ("Mini", "n = 64 images", "protocol mini@1", "1 standard error", "0.01 kWh (estimated)"):
        assert part in words(family)
    assert "Unfinished" not in words(family)
    assert legend_labels(family) == [*FAMILY, "on the Pareto front"]


def test_published_curves_are_the_24_points_of_the_card():
    curves = published_curves()
    assert list(curves.columns) == ["checkpoint", "label", "guidance_scale", "clip_score", "fid"]
    assert curves.groupby("checkpoint")["guidance_scale"].apply(tuple).tolist() == [SCALES] * 3
    assert curves["fid"].between(14, 23).all()
    assert curves["clip_score"].between(0.27, 0.34).all()


def test_published_curves_lie_under_the_real_metrics_in_the_same_hue():
    results = run({"512-base-ema": (-0.33, 12, 1)}, metrics=("fid", "clip_score"))
    figure = pareto_figure(results, published=published_curves())
    curves = {line.get_label(): line for line in lines(main_axes(figure), joined=True)}
    measured = next(line for line in curves.values() if "published" not in line.get_label())
    published = {label: line for label, line in curves.items() if "published" in label}
    assert sum(len(line.get_xdata()) for line in published.values()) == 24
    assert published["v2.0, published"].get_color() == measured.get_color()
    assert published["v1.5, published"].get_color() != measured.get_color()
    assert all(
        line.get_zorder() < measured.get_zorder() and line.get_alpha() < 1 for line in published.values()
    )
    assert set(published) < set(legend_labels(figure))
    assert "n = 10,000" in words(figure)


def test_published_curves_never_lie_under_mini_metrics(family):
    figure = pareto_figure(run(FAMILY), published=published_curves())
    assert not any("published" in label for label in legend_labels(figure))
    assert len(lines(main_axes(figure), joined=True)) == 3
    assert main_axes(figure).get_xlim() == main_axes(family).get_xlim()


def test_an_unfinished_run_shows_what_is_there_and_says_so():
    results = run(FAMILY)
    half = results[~((results["checkpoint"] == "768-v") & (results["guidance_scale"] > 3))]
    figure = pareto_figure(half, planned=40)
    assert "Unfinished: 19 of 40 cells." in words(figure)
    assert len(labels(main_axes(figure))) == 19
    no_score = half.drop(half[(half["metric"] == "clip_mini") & (half["guidance_scale"] == 8)].index)
    assert "Unfinished: 17 of 19 cells." in words(pareto_figure(no_score))


def test_different_protocols_are_warned_about():
    results = run(FAMILY)
    results.loc[results["checkpoint"] == "768-v", "protocol"] = "clean_fid@2"
    figure = pareto_figure(results)
    assert "different protocols" in words(figure)
    assert "clean_fid@2" in words(figure)


def test_a_long_energy_note_gets_a_line_of_its_own():
    note = "0.0123 kWh, 4.7 g CO2eq (estimated: CPU power assumed, no RAPL or NVML sensor; grid USA)"
    figure = pareto_figure(run(FAMILY), energy_note=note)
    assert figure.get_supxlabel().splitlines()[1] == note
    renderer = FigureCanvasAgg(figure).get_renderer()
    footer = next(text for text in figure.texts if text.get_text() == figure.get_supxlabel())
    assert footer.get_window_extent(renderer).x1 < figure.bbox.x1
    assert "|   0.01 kWh" in pareto_figure(run(FAMILY), energy_note="0.01 kWh").get_supxlabel()


def test_one_cell_is_a_whole_figure():
    figure = pareto_figure(run({"512-base": (0, 0, 1)}, scales=(3.0,), stderr=(0.0, 0.0)))
    axes = main_axes(figure)
    assert len(points(axes, filled=True)) == 1
    assert [text.get_text() for text in labels(axes)] == ["3"]
    assert np.ptp(axes.get_xlim()) > 0 < np.ptp(axes.get_ylim())


def test_unknown_errors_are_no_bars_but_the_point_stays():
    figure = pareto_figure(run(FAMILY, stderr=(np.nan, np.nan)))
    assert len(points(main_axes(figure), True) | points(main_axes(figure), False)) == 24


def test_a_curve_in_a_spot_is_labelled_in_a_zoom():
    figure = pareto_figure(run(FAMILY | {"x4-upscaling": (0.01, -1.5, 0.02)}))
    zoom = next(axes for axes in figure.axes if axes.get_title(loc="left") == "zoom: x4-upscaling")
    assert sorted(float(text.get_text()) for text in labels(zoom)) == list(SCALES)
    assert len(labels(main_axes(figure))) == 24
    assert len(points(main_axes(figure), True) | points(main_axes(figure), False)) == 32


def test_a_far_curve_does_not_squeeze_the_others():
    near, far = run(FAMILY), run(FAMILY | {"x4-upscaling": (0.01, 30, 1)})
    figure = pareto_figure(far)
    assert main_axes(figure).get_ylim() == main_axes(pareto_figure(near)).get_ylim()
    overview = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("all"))
    assert overview.get_ylim()[1] > 30
    zoom = next(axes for axes in figure.axes if axes.get_title(loc="left") == "zoom: x4-upscaling")
    assert len(labels(zoom)) == 8
    assert "x4-upscaling" in legend_labels(figure)


@pytest.mark.parametrize("missing", ["fd_mini", "clip_mini"])
def test_nothing_to_plot_is_refused(missing):
    results = run(FAMILY)
    with pytest.raises(InputError, match="no cell has both a distance and a score"):
        pareto_figure(results[results["metric"] != missing])


def test_no_results_are_refused():
    with pytest.raises(InputError, match="hold nothing"):
        pareto_figure(run({}))


def test_files_are_written_and_the_svg_is_deterministic(tmp_path, family):
    png, svg = save(family, tmp_path / "pareto")
    assert png.name == "pareto.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    _, again = save(
        pareto_figure(run(FAMILY), energy_note="0.01 kWh (estimated)", title="Mini"), tmp_path / "again"
    )
    assert hashlib.sha256(svg.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
    assert not re.search(rb"<dc:date>", svg.read_bytes())


def face(axes, x: float, y: float):
    """Colour that the point at (x, y) is filled with, as red, green and blue."""
    return next(
        to_rgb(line.get_markerfacecolor())
        for line in lines(axes, joined=False)
        if tuple(line.get_xydata()[0].round(9)) == (round(x, 9), round(y, 9))
    )


def test_points_are_filled_as_far_as_they_are_likely_to_be_on_the_front(family):
    results = run(FAMILY)
    table = cells(results)
    likely = {(row.checkpoint, row.guidance_scale): 0.0 for row in table.itertuples()}
    likely[("768-v", 1.5)], likely[("512-base", 2.0)] = 1.0, 0.5
    figure = pareto_figure(results, chances=likely)
    where = {(row.checkpoint, row.guidance_scale): (row.score, row.distance) for row in table.itertuples()}
    axes, look = main_axes(figure), styles(FAMILY)
    assert face(axes, *where["768-v", 1.5]) == pytest.approx(to_rgb(look["768-v"].colour))
    half = [(1 + part) / 2 for part in to_rgb(look["512-base"].colour)]
    assert face(axes, *where["512-base", 2.0]) == pytest.approx(half)
    assert face(axes, *where["512-depth", 8.0]) == (1, 1, 1)
    assert legend_labels(figure) == [*FAMILY, "on the Pareto front", "fill: how likely"]
    ringed = [line for line in lines(axes, joined=False) if line.get_markeredgecolor() == INK]
    assert len(ringed) == len(points(main_axes(family), filled=True))  # the ring is still the front itself


def test_a_cell_without_a_probability_is_filled_if_it_is_on_the_front(family):
    figure = pareto_figure(run(FAMILY), chances={("768-v", 1.5): 0.0})
    assert points(main_axes(figure), True) == points(main_axes(family), True)
