import io
from dataclasses import fields

import pandas as pd
import pytest
from rich.console import Console

from sd2eval.metrics import METRICS
from sd2eval.records import Score
from sd2eval.tables import (
    format_value,
    further_markdown_tables,
    further_terminal_tables,
    markdown_table,
    results_frame,
    terminal_table,
)


def score(checkpoint, scale, name, value, stderr, n=10_000) -> Score:
    metric = METRICS[name]
    return Score(
        checkpoint=checkpoint,
        guidance_scale=scale,
        metric=name,
        value=value,
        stderr=stderr,
        n=n,
        direction=metric.direction,
        unit=metric.unit,
        protocol="model_card@9ab31c02",
    )


@pytest.fixture
def results() -> pd.DataFrame:
    """The widest a real table gets: the longest name, six digits of CLIP score."""
    scores = []
    for i, checkpoint in enumerate(("768-v-ema", "512-inpainting-ema")):
        for j, scale in enumerate((1.5, 3.0, 8.0)):
            scores.append(score(checkpoint, scale, "fid", 18.25 + i - j / 2, 0.13))
            scores.append(score(checkpoint, scale, "kid", 0.004641 + i / 1e4 - j / 1e4, 0.000122))
            scores.append(score(checkpoint, scale, "clip_score", 0.3 + i / 1e3 + j / 1e2, 0.00025))
    return results_frame(scores)


def kwh(results):
    return {(row.checkpoint, row.guidance_scale): 1.234 for row in results.itertuples()}


def printed(table, width, **options) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(table)
    return stream.getvalue()


def test_frame_has_the_fields_of_a_score_in_order(results):
    assert list(results.columns) == [field.name for field in fields(Score)]
    assert list(results_frame([]).columns) == list(results.columns)
    again = pd.read_csv(io.StringIO(results.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, results, check_dtype=False)
    assert Score(**results.iloc[4].to_dict()) == Score(**again.iloc[4].to_dict())


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_table_fits_and_cuts_nothing(results, width):
    text = printed(terminal_table(results, kwh(results), title="A run"), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "512-inpainting-ema" in text
    assert text.count("0.32000 ± 0.00025") == 1
    assert text.count("1.2") >= 6
    assert "n = 10,000" in text
    assert "\x1b" not in text  # plain text when not a terminal


def test_one_row_per_cell(results):
    rows = [line for line in printed(terminal_table(results), 100).splitlines() if "-ema" in line]
    assert len(rows) == 6
    assert [row.split()[0] for row in rows] == ["768-v-ema"] * 3 + ["512-inpainting-ema"] * 3


def test_best_and_front_are_marked_by_direction(results):
    rows = [line for line in printed(terminal_table(results), 100).splitlines() if "-ema" in line]
    lowest_distance, highest_score = rows[2], rows[5]
    assert "*17.25 ± 0.13" in lowest_distance
    assert "*4.44 ± 0.12" in lowest_distance  # KID in thousandths, as the head says
    assert "*0.32100 ± 0.00025" in highest_score
    assert ["◆" in row for row in rows] == [False, False, True, False, False, True]


def test_n_gets_a_column_when_it_differs():
    scores = [score("a", s, "fid", 1.0, 0.1, n) for s, n in ((1.0, 64), (2.0, 63))]
    text = printed(terminal_table(results_frame(scores)), 80)
    assert "n = " not in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("a ")] == ["64", "63"]


def test_missing_metrics_and_energies_are_dashes():
    scores = [score("a", 1.0, "fid", 1.0, 0.1), score("a", 2.0, "clip_score", 0.3, 0.1)]
    text = printed(terminal_table(results_frame(scores), {("a", 1.0): 2.0}), 80)
    first, second = (line for line in text.splitlines() if line.startswith("a "))
    assert first.split() == ["a", "1", "*1.00", "±", "0.10", "-", "2"]
    assert second.split() == ["a", "2", "-", "*0.30", "±", "0.10", "-"]


def test_no_results_are_a_table_without_rows():
    assert "checkpoint" in printed(terminal_table(results_frame([])), 80)


def test_markdown_has_equal_columns_and_bold_bests(results):
    table, legend = markdown_table(results, kwh(results)).split("\n\n")
    lines = table.splitlines()
    assert len(lines) == 8
    assert len({line.count("|") for line in lines}) == 1
    assert "KID x1000 ↓" in lines[0]
    assert "| **17.25 ± 0.13** |" in lines[4]
    assert "**bold** best" in legend
    assert "*17" not in table.replace("**", "")


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (15.0034, 0.1234, "15.00 ± 0.12"),
        (0.333412, 0.000249, "0.33341 ± 0.00025"),
        (1234.5, 37.2, "1234 ± 37"),
        (1234.5, 456.7, "1234 ± 457"),
        (-0.00012, 0.0004, "-0.00012 ± 0.00040"),
        (2.5, 0.0, "2.5 ± 0"),
        (2.5, float("nan"), "2.5"),
        (float("nan"), 1.0, "-"),
    ],
)
def test_digits_follow_the_standard_error(value, stderr, text):
    assert format_value(value, stderr) == text


def test_small_energies_are_in_watt_hours_and_scales_show_their_decimals():
    scores = [score("a", scale, "fid", 1.0, 0.1) for scale in (1.25, 8.0)]
    text = printed(terminal_table(results_frame(scores), {("a", 1.25): 0.002, ("a", 8.0): 0.0125}), 80)
    rows = [line.split() for line in text.splitlines() if line.startswith("a ")]
    assert [(row[1], row[-1]) for row in rows] == [("1.25", "2"), ("8.00", "12")]
    assert "Wh" in text
    assert "kWh" not in text


@pytest.fixture
def paired() -> pd.DataFrame:
    """An inpainting, an upscaling and a depth checkpoint, and one without paired metrics."""
    scores = []
    for scale in (1.5, 3.0):
        for checkpoint in ("512-base-ema", "512-inpainting-ema", "x4-upscaling-ema", "512-depth-ema"):
            scores.append(score(checkpoint, scale, "fid", 18.0, 0.13))
            scores.append(score(checkpoint, scale, "clip_score", 0.3, 0.00025))
        for checkpoint, best in (("512-inpainting-ema", 20.0), ("x4-upscaling-ema", 30.0)):
            scores.append(score(checkpoint, scale, "psnr", best - scale, 0.0123))
            scores.append(score(checkpoint, scale, "ssim", 0.8 - scale / 10, 0.00012))
            scores.append(score(checkpoint, scale, "lpips", 0.1 + scale / 10, 0.00012))
        scores.append(score("512-inpainting-ema", scale, "psnr_mask", 10 - scale, 0.1))
        scores.append(score("512-inpainting-ema", scale, "lpips_mask", 0.3 + scale, 0.1))
        scores.append(score("512-depth-ema", scale, "depth_agreement", 0.9 + scale / 100, 0.00012))
    return results_frame(scores)


def test_paired_metrics_have_tables_of_their_own_below(paired):
    assert "PSNR" not in printed(terminal_table(paired), 120)
    texts = [printed(table, 80) for table in further_terminal_tables(paired)]
    titles = [text.splitlines()[0] for text in texts]
    assert titles == [
        "Each image against the caption's own",
        "The same, inside the painted mask",
        "Depth seen in each image against the depth given",
    ]
    rows = [[line.split()[0] for line in text.splitlines() if "-ema" in line] for text in texts]
    assert rows == [
        ["512-inpainting-ema"] * 2 + ["x4-upscaling-ema"] * 2,
        ["512-inpainting-ema"] * 2,
        ["512-depth-ema"] * 2,
    ]
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        assert "n = 10,000 per cell" in text.splitlines()[-1]


def test_the_best_paired_values_are_those_of_each_checkpoint(paired):
    text = printed(further_terminal_tables(paired)[0], 80)
    rows = [line for line in text.splitlines() if "-ema" in line]
    assert "*18.500" in rows[0]
    assert "*28.500" in rows[2]
    assert "*0.25000" in rows[0]  # LPIPS: lower is better
    assert "*" not in rows[1] + rows[3]
    depth = printed(further_terminal_tables(paired)[2], 80).splitlines()
    assert ["*" in line for line in depth if "-ema" in line] == [False, True]


def test_scales_of_a_paired_table_ascend_and_belong_to_their_values():
    scores = [score("x", scale, "psnr", 10 + scale, 0.1) for scale in (8.0, 1.5, 3.0)]
    text = printed(further_terminal_tables(results_frame(scores))[0], 80)
    rows = [line.split()[1:3] for line in text.splitlines() if line.startswith("x ")]
    assert rows == [["1.5", "11.50"], ["3.0", "13.00"], ["8.0", "*18.00"]]


def test_n_of_a_paired_table_gets_a_column_when_it_differs():
    scores = [score("x", scale, "psnr", 10.0, 0.1, n) for scale, n in ((1.0, 64), (2.0, 63))]
    text = printed(further_terminal_tables(results_frame(scores))[0], 80)
    assert "n = " not in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("x ")] == ["64", "63"]


def test_paired_markdown_has_a_table_under_each_title(paired):
    text = further_markdown_tables(paired)
    assert text.count("**bold** best of its checkpoint") == 3
    assert "Each image against the caption's own:\n\n| checkpoint | scale | PSNR ↑ |" in text
    assert "| **18.500 ± 0.012** |" in text
    assert further_markdown_tables(paired[paired["metric"] == "fid"]) == ""


def test_results_without_paired_metrics_have_no_paired_table(results):
    assert further_terminal_tables(results) == []
    assert further_terminal_tables(results_frame([])) == []


def test_the_probability_of_the_front_is_a_column_that_still_fits(results):
    chances = {(row.checkpoint, row.guidance_scale): 0.934 for row in results.itertuples()}
    chances.pop(("768-v-ema", 1.5))
    text = printed(terminal_table(results, kwh(results), chances=chances), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert text.count("0.93 ") == 5
    assert "probability of being on it" in " ".join(text.split())
    first = next(line for line in text.splitlines() if line.startswith("768-v-ema"))
    assert first.split()[:3] == ["768-v-ema", "1.5", "-"]
    assert "| checkpoint | scale | front | FID ↓ |" in markdown_table(results, chances=chances)
    assert "probability" not in printed(terminal_table(results), 80)
