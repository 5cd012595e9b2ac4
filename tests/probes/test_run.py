"""A folder of probes: tidy rows, joined runs, replaced rows, nothing measured twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

import sd2eval
from sd2eval.errors import InputError
from sd2eval.probes import joining, records, registry, run
from sd2eval.probes.base import PromptSet, Unavailable
from sd2eval.records import RunInfo
from sd2eval.seals import seal

FEW = (
    "device=cpu",
    "sampler.steps=2",
    "settings.languages.n=3",
    "settings.autoencoder.n=6",
    "progress=false",
)


def call(folder: Path, *words: str) -> run.ProbeRun:
    return sd2eval.run_probes(*words, *FEW, f"out={folder}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probes") / "out"
    call(out, "languages", "autoencoder", "checkpoints=[512-base]")
    return out


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "probes.csv", keep_default_na=False, na_values={"value": [""]})


def test_rows_are_tidy_and_every_number_has_its_interval(folder: Path) -> None:
    rows = table(folder)
    assert list(rows.columns) == records.COLUMNS
    assert set(rows["probe"]) == {"languages", "autoencoder"}
    assert set(rows["protocol"].str.partition("@")[0]) == {"mini"}
    known = rows[rows["value"].notna()]
    assert (known["low"].astype(float) <= known["value"]).all()
    assert (known["high"].astype(float) >= known["value"]).all()
    assert not rows.duplicated(["probe", "part", "checkpoint", "guidance_scale", "metric"]).any()


def test_the_files_name_what_they_rest_on(folder: Path) -> None:
    whole = json.loads((folder / "probes.json").read_text())
    one = next(one for one in whole["measurements"] if one["probe"] == "languages")
    assert one["prompts"]["n"] == 9
    assert len(one["fields"]["digests.weights"]) == len(one["fields"]["digests.code"]) == 64
    assert one["digests"].keys() == {"mini_clip"}
    assert {row["probe"] for row in whole["energy"]} == {"", "languages", "autoencoder"}
    text = (folder / "probes.md").read_text()
    assert registry.find("languages").sentence in text
    for probe in ("languages", "autoencoder"):
        assert (folder / "probes" / "sheets" / f"{probe}.png").exists()
        assert f"(probes/sheets/{probe}.png)" in text


def test_what_was_measured_is_not_measured_again(folder: Path) -> None:
    before = {file: file.read_bytes() for file in records.folder(folder).iterdir()}
    call(folder, "languages", "checkpoints=[512-base]")
    assert {file: file.read_bytes() for file in records.folder(folder).iterdir()} == before


def test_other_settings_replace_the_rows_of_their_probe_only(folder: Path) -> None:
    before = table(folder)
    after = sd2eval.run_probes(
        "autoencoder", *FEW, "checkpoints=[512-base]", "settings.autoencoder.n=4", f"out={folder}"
    )
    rows = table(folder)
    pd.testing.assert_frame_equal(
        rows[rows["probe"] == "languages"].reset_index(drop=True),
        before[before["probe"] == "languages"].reset_index(drop=True),
    )
    assert (rows[(rows["probe"] == "autoencoder") & (rows["part"] == "")]["n"] == 4).all()
    assert after.names == ["autoencoder"]


def test_a_probe_that_is_unavailable_is_one_line_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(bench: object) -> PromptSet:
        raise Unavailable("component 'reader': rapidocr is not installed; pip install 'sd2eval[probes]'")

    real = registry.find
    changed = {"languages": without}

    def find(name: str) -> object:
        probe = real(name)
        return dataclasses.replace(probe, prompts=changed[name]) if name in changed else probe

    monkeypatch.setattr(registry, "find", find)
    found = call(tmp_path / "out", "languages", "autoencoder", "checkpoints=[512-base]")
    assert [line.partition(":")[0] for line in found.left_out] == ["languages, 512-base"]
    assert {one.probe for one in found.measured} == {"autoencoder"}
    assert "rapidocr is not installed" in (tmp_path / "out" / "probes.md").read_text()
    with pytest.raises(InputError, match="rapidocr is not installed"):
        call(tmp_path / "other", "languages", "checkpoints=[512-base]")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds thesis.tex but neither probes nor a run"):
        call(tmp_path, "autoencoder")


def test_a_measurement_that_is_damaged_or_of_another_version_is_said(folder: Path, tmp_path: Path) -> None:
    file = records.folder(tmp_path) / "people_512-base_g3.json"
    file.parent.mkdir(parents=True)
    for version, told in ((records.SCHEMA_VERSION, "damaged .*remove it"), (1, "of another version")):
        file.write_bytes(seal({"schema_version": version}))
        with pytest.raises(InputError, match=f"people_512-base_g3.json: {told}"):
            records.read(tmp_path)


def test_probes_join_a_sweeps_run_and_say_where_they_differ(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sweep = ("checkpoints=[512-base]", "guidance_scales=[2]", "prompts.n=8", "sampler.steps=1", "device=cpu")
    sd2eval.run_sweep(*sweep, "progress=false", f"out={out}", "protocol.metrics=[fd_mini,clip_mini]")
    before = (out / "results.csv").read_bytes()
    figure = (out / "pareto.svg").read_bytes()
    found = call(out, "autoencoder", "safety", "checkpoints=[512-base,768-v]", "settings.safety.n=4")
    steps = "sampler.steps: the run has 1, the probes have 2"
    assert found.notes == ["checkpoints: 768-v is not in the run", steps]
    assert (out / "results.csv").read_bytes() == before
    assert (out / "pareto.svg").read_bytes() != figure
    assert "autoencoder alone" in (out / "pareto.svg").read_text()
    sd2eval.verify_run(out)

    changed = ("protocol.quantize=truncate", "protocol.distance.dtype=bfloat16", "captions_seed=3")
    found = call(
        out, "autoencoder", "checkpoint=512-base", "checkpoint.prediction_type=v_prediction", *changed
    )
    assert found.notes == [
        "checkpoints.512-base.prediction_type: the run has epsilon, the probes have v_prediction",
        "protocol.quantize: the run has round, the probes have truncate",
        "protocol.distance.dtype: the run has float32, the probes have bfloat16",
        "captions_seed: the run has 0, the probes have 3",
    ]
    told = (out / "probes.md").read_text().partition("## Measured otherwise")[2].splitlines()
    assert [line for line in told if line.startswith("- ")] == [
        *(f"- autoencoder (512-base): {note}" for note in found.notes),
        "- autoencoder (768-v): checkpoints: 768-v is not in the run",
        f"- safety: {steps}",  # of the earlier call
        "- safety (768-v, scale 3): checkpoints: 768-v is not in the run",
    ]
    kept = json.loads((out / "probes.json").read_text())["measurements"]
    assert [one["joined"] for one in kept if one["probe"] == "safety"] == [
        [steps],
        ["checkpoints: 768-v is not in the run", steps],
    ]
    assert "autoencoder alone" not in (out / "pareto.svg").read_text()
    assert "no floor of 512-base: it was measured with protocol.quantize=" in (out / "pareto.svg").read_text()


def test_other_captions_images_weights_and_networks_are_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = next(one for one in records.read(folder) if one.probe == "autoencoder")
    info = RunInfo(
        schema_version=1,
        identity="",
        identity_fields=one.fields,
        config={"checkpoint_definitions": {"512-base": {}}},
        digests={
            "data/captions": "c" * 64,
            "weights/512-base": "w" * 64,
            "reference": "r" * 64,
            "extractor/distance": "d" * 64,
        },
        reference_n=7,
    )
    monkeypatch.setattr(joining.RunFolder, "exists", property(lambda store: True))
    monkeypatch.setattr(joining.RunFolder, "read_info", lambda store: info)
    lines = joining.differences(folder, [one])[one.stem]
    assert [line.partition(",")[0] for line in lines] == [
        "captions: the run has cccccccccccc...",
        "weights: the run has wwwwwwwwwwww...",
        "real images: the run has 7 others",
        "protocol.distance (mini_classifier): the run has dddddddddddd...",
    ]


def test_other_weights_under_the_same_name_do_not_join(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sd2eval.run_sweep(
        *("checkpoint=768-v", "checkpoint.name=512-base", "guidance_scales=[2]", "prompts.n=8"),
        *("sampler.steps=1", "device=cpu", "progress=false", f"out={out}", "protocol.metrics=[clip_mini]"),
    )
    with pytest.raises(InputError, match=r"its '512-base' has other weights"):
        call(out, "autoencoder", "checkpoints=[512-base]")
