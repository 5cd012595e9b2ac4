"""One run under other protocols: every number is what a sweep under that protocol gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sd2eval
from benchmarks.random_inception import save_random_inception
from sd2eval import run_tables
from sd2eval.errors import InputError
from sd2eval.matrix.result import ProtocolMatrix
from sd2eval.report import write_report
from sd2eval.seals import seal, unseal
from sd2eval.store import RunFolder
from tests import damage
from tests.matrix import uneven

CELL = ["checkpoint", "guidance_scale"]
MINI = ("mini_squash", "mini_jpeg", "mini_half", "mini_aliased")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return uneven.write(tmp_path_factory.mktemp("uneven") / "data")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: tuple[str, ...]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mini"
    sd2eval.run_sweep(*uneven.SWEEP, *data, f"out={out}")
    return out


@pytest.fixture(scope="module")
def found(run: Path) -> ProtocolMatrix:
    return sd2eval.protocol_matrix(run)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that a test may damage, with a cache of its own."""
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def values(found: ProtocolMatrix, protocol: str) -> pd.DataFrame:
    rows = found.frame[found.frame["protocol"] == protocol]
    return rows.set_index(CELL)[["value", "stderr", "n"]]


def swept(run: Path, metric: str) -> pd.DataFrame:
    results = pd.read_csv(run / "results.csv")
    return results[results["metric"] == metric].set_index(CELL)[["value", "stderr", "n"]]


# What the numbers are


def test_the_runs_own_protocol_gives_the_runs_own_results_again(run: Path, found: ProtocolMatrix) -> None:
    assert (found.own, found.first, found.metric) == ("mini", "mini", "fd_mini")
    pd.testing.assert_frame_equal(
        values(found, "mini"), swept(run, "fd_mini"), check_dtype=False, rtol=1e-6, atol=0
    )
    assert (found.agreement.compared, found.agreement.agrees) == (2, True)
    images = sd2eval.load_run(run).prompts["image_id"]
    assert images.nunique() < len(images)  # so that the standard errors are clustered ones


@pytest.mark.parametrize("protocol", MINI)
def test_a_preset_gives_what_a_sweep_under_it_gives(
    protocol: str, found: ProtocolMatrix, data: tuple[str, ...], tmp_path: Path
) -> None:
    sd2eval.run_sweep(*uneven.SWEEP, *data, f"protocol={protocol}", f"out={tmp_path / 'other'}")
    there = swept(tmp_path / "other", "fd_mini")
    pd.testing.assert_frame_equal(values(found, protocol), there, check_dtype=False, rtol=1e-6, atol=0)
    moved = (there["value"] - values(found, "mini")["value"]).abs().max()
    assert moved > 1e-4 * there["value"].max()  # or this test could not fail


def test_published_presets_give_what_sweeps_under_them_give(data: tuple[str, ...], tmp_path: Path) -> None:
    weights = save_random_inception(tmp_path / "inception.pth")
    settings = (
        "protocol.resolution=64",
        f"protocol.distance.source={weights}",
        "protocol.distance.pretrained=null",
    )
    short = ("protocol.metrics=[fid]", "guidance_scales=[1.5]", "prompts.n=4", *settings)
    for name in ("model_card", "mlperf"):
        words = (f"protocol={name}", *short, f"out={tmp_path / name}")
        sd2eval.run_sweep(*uneven.SWEEP, *data, *words)
    wanted = ["mlperf", "clean_fid"]
    got = sd2eval.protocol_matrix(tmp_path / "model_card", protocols=wanted, overrides=settings)
    other = "mlperf (resolution=64, pretrained=null)"
    assert [shift.protocol for shift in got.shifts] == [
        "model_card",
        "clean_fid (resolution=64, pretrained=null)",
        other,
    ]
    for name, folder in (("model_card", "model_card"), (other, "mlperf")):
        there = swept(tmp_path / folder, "fid")
        pd.testing.assert_frame_equal(values(got, name), there, check_dtype=False, rtol=1e-6, atol=0)
    assert len(set(got.frame["value"])) == 3
    assert got.reproduce_words.startswith("protocol_spread.fid=")


def test_differences_spreads_and_means_are_those_of_the_values(found: ProtocolMatrix) -> None:
    table = found.frame.pivot_table(index=CELL, columns="protocol", values="value")
    moved = table.sub(table["mini"], axis=0)
    spread = table.max(axis=1) - table.min(axis=1)
    for shift in found.shifts:
        assert shift.mean == pytest.approx(moved[shift.protocol].mean(), abs=1e-12)
        most = moved[shift.protocol].loc[(shift.largest_checkpoint, shift.largest_scale)]
        assert shift.largest == pytest.approx(most, abs=1e-12)
        assert abs(most) == moved[shift.protocol].abs().max()
    assert [row.spread for row in found.spreads] == pytest.approx(list(spread))
    assert found.widest.spread == pytest.approx(spread.max())
    assert found.mean_spread == pytest.approx(spread.mean())
    assert found.largest_shift == pytest.approx(moved.abs().to_numpy().max())
    assert f"up to {spread.max():.3g} (512-base at" in found.sentence
    assert f"{spread.mean():.3g} on average over 2 cells" in found.sentence


def test_a_difference_on_the_same_images_is_surer_than_a_value(found: ProtocolMatrix) -> None:
    rows = found.frame[found.frame["protocol"] == "mini_half"]
    assert (rows["difference_stderr"] < 0.2 * rows["stderr"]).all()
    assert (rows["difference_stderr"] > 0).all()


def test_an_invalid_image_is_left_out_as_in_the_run(copy: Path) -> None:
    (shard,) = (copy / "shards" / "512-base").iterdir()
    manifest = unseal((shard / "manifest.json").read_bytes())
    bad = manifest["images"][2]
    bad["invalid"] = "non-finite"
    (shard / "manifest.json").write_bytes(seal(manifest))
    (copy / "images" / f"512-base_g{bad['guidance_scale']:g}" / f"{bad['caption_id']}.png").unlink()
    write_report(copy)
    found = sd2eval.protocol_matrix(copy, protocols=["mini_jpeg"])
    pd.testing.assert_frame_equal(
        values(found, "mini"), swept(copy, "fd_mini"), check_dtype=False, rtol=1e-6, atol=0
    )
    assert sorted(values(found, "mini_jpeg")["n"]) == [5, 6]
    assert np.isfinite([shift.mean_stderr for shift in found.shifts]).all()


def test_another_metric_of_the_same_images(run: Path) -> None:
    found = sd2eval.protocol_matrix(run, protocols=["mini_squash"], metric="kid_mini", scales=[3.0])
    there = swept(run, "kid_mini").loc[[("512-base", 3.0)]]
    pd.testing.assert_frame_equal(values(found, "mini"), there, check_dtype=False, rtol=1e-6, atol=0)
    assert "KD (mini) x1000" in found.sentence
    assert len(found.spreads) == 1


# What cannot be varied, and what is left out


def test_choices_before_the_png_are_named_where_a_preset_differs_in_them(
    data: tuple[str, ...], tmp_path: Path
) -> None:
    words = (
        "checkpoints=[512-base,768-v]",
        "protocol.metrics=[fd_mini]",
        "guidance_scales=[1.5]",
        "prompts.n=4",
        "protocol.quantize=truncate",
    )
    sd2eval.run_sweep(*uneven.SWEEP, *data, *words, f"out={tmp_path / 'run'}")
    found = sd2eval.protocol_matrix(tmp_path / "run", protocols=["mini", "mini_native", "mini_aliased"])
    assert (found.own, found.first) == ("mini", "mini")
    both = ["512-base", "768-v"]
    settled = {shift.protocol: shift.not_varied for shift in found.shifts}
    assert settled == {
        "mini": {},
        "mini (preset)": {"quantize": both},
        "mini_native": {"quantize": both, "sample_at": ["768-v"]},
        "mini_aliased": {"quantize": both, "resize": ["768-v"]},
    }
    same = {shift.protocol: shift.same_as for shift in found.shifts}
    assert same == {
        "mini": "",
        "mini (preset)": "mini",
        "mini_native": "mini",
        "mini_aliased": "",
    }


def test_settings_are_in_the_name_of_what_they_change_and_the_runs_own_keeps_its_name(run: Path) -> None:
    wanted = ["mini", "mini_jpeg", "mlperf"]
    found = sd2eval.protocol_matrix(run, protocols=wanted, overrides=["protocol.resolution=32"])
    names = ["mini", "mini (resolution=32)", "mini_jpeg (resolution=32)"]
    assert [shift.protocol for shift in found.shifts] == names
    assert (found.own, found.agreement.compared, found.agreement.agrees) == ("mini", 2, True)
    assert found.protocol == sd2eval.load_run(run).results["protocol"].iloc[0]
    assert found.reference_n == uneven.PICTURES
    assert list(found.left_out) == ["mlperf"]  # its network is another, so no setting is for it
    same = sd2eval.protocol_matrix(run, protocols=wanted, overrides=["protocol.resolution=64"])
    assert [shift.protocol for shift in same.shifts] == ["mini", "mini_jpeg"]


def test_a_preset_that_a_setting_spoils_is_not_taken_for_the_runs_own(run: Path) -> None:
    found = sd2eval.protocol_matrix(run, protocols=["mini", "mini_jpeg"], overrides=["protocol.resolution=0"])
    assert [shift.protocol for shift in found.shifts] == ["mini"]
    assert list(found.left_out) == ["mini_jpeg", "mini (preset)"]


def test_presets_of_another_network_are_left_out_with_the_reason(found: ProtocolMatrix) -> None:
    assert {"model_card", "mlperf", "clean_fid", "torchmetrics"} <= found.left_out.keys()
    assert "fd_mini stands for mini_classifier" in found.left_out["mlperf"]


def test_a_preset_of_larger_images_is_left_out(run: Path) -> None:
    with pytest.raises(
        InputError, match=r"model_card, .*: it scores 512-pixel images, the PNGs of 512-base have 64"
    ) as error:
        sd2eval.protocol_matrix(run, metric="fid")
    assert str(error.value).count("it scores 512-pixel") == 1
    assert str(error.value).count("fid stands for") == 1


def test_missing_weights_are_asked_for_and_not_fetched(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(InputError, match=r"clean_fid: .*models fetch inception"):
        sd2eval.protocol_matrix(run, metric="fid", protocols=["clean_fid"])
    assert not (tmp_path / "torch").exists()


def test_other_weights_than_the_published_ones_are_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(InputError, match=r"holds other weights: see .*models verify inception"):
        sd2eval.protocol_matrix(run, metric="fid", protocols=["clean_fid"])
    assert file.read_bytes() == b"something else"


def test_weights_that_are_not_the_runs_are_not_called_its_own_protocol(copy: Path) -> None:
    record = json.loads((copy / "run.json").read_text())
    record["digests"]["extractor/distance"] = "0" * 64
    damage.rewrite(copy, "run.json", record)
    found = sd2eval.protocol_matrix(copy, protocols=["mini_jpeg"])
    assert "weights are others here" in found.left_out["mini"]
    assert (found.first, found.agreement.compared, found.reproduce_words) == ("mini_jpeg", 0, "")
    assert found.sentence.startswith("Only one protocol can be computed on this run, mini_jpeg")


# Images that are not what was scored


def png(run: Path) -> Path:
    return sorted((run / "images" / "512-base_g3").iterdir())[1]


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize("fault", ["missing", "changed", "cut"])
def test_a_png_that_is_not_what_was_scored_is_named_with_what_to_do(fault: str, copy: Path) -> None:
    file = png(copy)
    if fault == "missing":
        file.unlink()
    elif fault == "changed":
        pixels = np.array(Image.open(file))
        pixels[5, 5, 1] ^= 1
        Image.fromarray(pixels).save(file)
    else:
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match=rf"{file.name}: .*verify {copy} --repair`") as error:
        sd2eval.protocol_matrix(copy)
    assert "\n" not in str(error.value)


def test_a_run_without_pngs_is_told_how_to_get_some(data: tuple[str, ...], tmp_path: Path) -> None:
    sd2eval.run_sweep(*uneven.SWEEP, *data, "images=grid", f"out={tmp_path / 'run'}")
    with pytest.raises(InputError, match=r"kept no PNGs \(images=grid\).*another folder with images=all"):
        sd2eval.protocol_matrix(tmp_path / "run")


def test_results_that_are_not_given_again_are_warned_of(copy: Path) -> None:
    results = pd.read_csv(copy / "results.csv")
    results.loc[results["metric"] == "fd_mini", "value"] *= 1 + 1e-5
    results.to_csv(copy / "results.csv", index=False)
    with pytest.raises(InputError, match=r"results\.csv: was changed since it was written"):
        sd2eval.protocol_matrix(copy, protocols=["mini"])
    run_tables.close(RunFolder(copy), [copy / "results.csv"])
    agreement = sd2eval.protocol_matrix(copy, protocols=["mini"]).agreement
    assert not agreement.agrees
    assert agreement.largest == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.usefixtures("fresh_cache")
def test_features_are_kept_so_that_a_second_call_reads_no_png(copy: Path) -> None:
    before = sd2eval.protocol_matrix(copy).frame
    png(copy).write_bytes(b"never read again")
    pd.testing.assert_frame_equal(sd2eval.protocol_matrix(copy).frame, before)


# The real images


def test_another_data_set_is_refused(run: Path, tmp_path: Path) -> None:
    words = uneven.write(tmp_path / "data")
    root = Path(words[0].removeprefix("data.root="))
    assert sd2eval.protocol_matrix(run, protocols=["mini"], data_root=str(root)).agreement.agrees
    captions = root / uneven.CAPTIONS
    captions.write_text(captions.read_text().replace("red", "grey"))
    with pytest.raises(InputError, match=r"captions\.json is another file than the run's"):
        sd2eval.protocol_matrix(run, data_root=str(root))
    with pytest.raises(InputError, match=r"data\.root=.*nowhere"):
        sd2eval.protocol_matrix(run, data_root=str(tmp_path / "nowhere"))
