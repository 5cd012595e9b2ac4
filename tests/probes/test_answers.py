"""What a call answers is what it measured with its own settings and inputs, and nothing older."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

import sd2eval
from sd2eval.config import ComponentConfig, probing
from sd2eval.errors import InputError
from sd2eval.images import load_rgb
from sd2eval.probes import components, contact, run, tables, written
from sd2eval.probes.base import Images, Tile, Unavailable
from sd2eval.probes.run import ProbeRun

Call = Callable[..., ProbeRun]
PACKAGE = Path(sd2eval.__path__[0])
FEW = (
    *("device=cpu", "sampler.steps=1", "progress=false", "checkpoints=[512-base]"),
    *("settings.autoencoder.n=6", "settings.safety.n=4"),
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with few answers, to be copied."""
    out = tmp_path_factory.mktemp("answers") / "out"
    sd2eval.run_probes("autoencoder", "safety", *FEW, f"out={out}")
    return out


@pytest.fixture
def call(drawn: Path, tmp_path: Path) -> Call:
    """Return a function that calls probes once more in a copy of that folder."""
    shutil.copytree(drawn, tmp_path / "out")

    def again(*words: str) -> ProbeRun:
        rest = [one for one in FEW if not any(word.startswith(key(one)) for word in words)]
        return sd2eval.run_probes(*words, *rest, f"out={tmp_path / 'out'}")

    return again


def key(word: str) -> str:
    """Return the `KEY=` of KEY=VALUE."""
    return word.partition("=")[0] + "="


def test_pictures_that_may_offend_are_blurred_or_not_as_this_call_wants(call: Call) -> None:
    sheets = []
    for blur in ("true", "false", "true"):
        found = call("safety", f"blur={blur}")
        told = (found.path / "probes.md").read_text()
        assert (written.BLURRED in told) is (blur == "true")
        sheets.append(load_rgb(found.path / "probes" / "sheets" / "safety.png"))
    assert (sheets[0] == sheets[2]).all()
    assert sheets[0].shape != sheets[1].shape or (sheets[0] != sheets[1]).any()


def test_a_call_that_answers_nothing_says_so_and_shows_no_older_answer(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"nope\.txt"):
        call("safety", "settings.safety.prompts_file=nope.txt")
    found = call("safety", "autoencoder", "settings.safety.prompts_file=nope.txt")
    assert {one.probe for one in found.answers} == {"autoencoder"}
    tables.show(found)
    shown = capsys.readouterr().out
    assert "left out: safety, 512-base" in shown
    assert "images have p(unsafe)" not in shown
    assert "512-base, scale 3 (of an earlier call): " in (found.path / "probes.md").read_text()


def test_other_weights_of_a_network_measure_anew(call: Call, tmp_path: Path) -> None:
    before = row(call("autoencoder"), "rfd_mini")
    other = tmp_path / "weights"
    shutil.copytree(PACKAGE / "mini" / "weights" / "classifier", other / "classifier")
    for file in other.rglob("*.safetensors"):
        save_file({name: 1.3 * tensor for name, tensor in load_file(file).items()}, file)
    after = row(call("autoencoder", f"protocol.distance.source={other}"), "rfd_mini")
    assert after["value"] != pytest.approx(before["value"])
    assert after["protocol"] != before["protocol"]


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("safety", ["protocol.metrics=[fd_mini]"]),
        ("autoencoder", ["seed=1", "sampler.steps=2", "sampler.eta=0.5"]),
    ],
)
def test_what_moves_no_number_measures_nothing_anew(call: Call, probe: str, words: list[str]) -> None:
    before = call(probe).answers
    assert call(probe, *words).answers == before


def test_a_sweeps_metrics_are_no_part_of_the_protocol_or_the_folder(call: Call) -> None:
    before = row(call("autoencoder"), "psnr")
    after = row(call("autoencoder", "settings.autoencoder.n=5", "protocol.metrics=[fd_mini]"), "psnr")
    assert (before["n"], after["n"]) == (6, 5)
    assert before["protocol"] == after["protocol"]
    words = ([], ["protocol.metrics=[fd_mini]"], ["protocol.quantize=truncate"])
    folders = [run.default_folder(*probing.from_overrides(*FEW, *more)) for more in words]
    assert folders[0] == folders[1] != folders[2]


def test_other_annotations_measure_anew(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(PACKAGE / "mini" / "data", root)
    before = psnr_inside(call("autoencoder", f"data.root={root}", "settings.autoencoder.n=40"))
    (file,) = root.rglob("instances*.json")
    swapped = json.loads(file.read_text())
    names = {"ball": "cube", "cube": "ball"}
    for category in swapped["categories"]:
        category["name"] = names.get(category["name"], category["name"])
    file.write_text(json.dumps(swapped))
    after = psnr_inside(call("autoencoder", f"data.root={root}", "settings.autoencoder.n=40"))
    assert (after["ball"], after["cube"]) == pytest.approx((before["cube"], before["ball"]))
    assert before["ball"] != pytest.approx(before["cube"])


def test_the_scale_of_a_row_is_the_one_that_its_pictures_were_drawn_at(call: Call) -> None:
    small = ("settings.default_culture.marked=4", "settings.default_culture.unmarked=1")
    rows = table(call("autoencoder", "safety", "default_culture", "guidance_scale=5", *small))
    scales = {probe: set(part["guidance_scale"].dropna()) for probe, part in rows.groupby("probe")}
    assert scales == {"autoencoder": set(), "safety": {3.0, 5.0}, "default_culture": {1.0}}


def test_what_lacked_a_component_is_measured_again_until_it_is_there(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(config: ComponentConfig, device: object) -> None:
        tried.append(config.name)
        raise Unavailable(f"component '{config.name}': cannot be had")

    people = ("people", "settings.people.n=12", "settings.people.smallest=2", "settings.people.photos=20")
    tried: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(components, "load", missing)
        for times in (1, 2):
            found = call(*people)
            assert row(found, "detection_rate", "ball")["n"] == 0
            assert found.answers[0].lacking == ["mini_detector"]
            assert tried == ["mini_detector"] * times
    assert row(call(*people), "detection_rate", "ball")["n"] > 0
    monkeypatch.setattr(components, "load", missing)
    assert row(call(*people), "detection_rate", "ball")["n"] > 0  # it is known now
    assert tried == ["mini_detector"] * 2


def test_answers_at_two_scales_are_told_apart(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    section = contact.section

    def noted(title: str, tiles: Sequence[Tile], *, blurred: bool) -> Images:
        titles.append(title)
        return section(title, tiles, blurred=blurred)

    monkeypatch.setattr(contact, "section", noted)
    told = (call("safety", "guidance_scale=2", "settings.safety.n=3").path / "probes.md").read_text()
    for scale in (2, 3):
        assert told.count(f"|  | 512-base, scale {scale} | unsafe_share_0.1 |") == 1
        assert told.count(f"Prompts of 512-base, scale {scale}: ") == 1
    assert set(titles) == {"safety, 512-base, scale 2"}


def test_a_category_with_a_bar_stays_in_its_cell(call: Call, tmp_path: Path) -> None:
    prompts = [{"text": f"A cube {i}.", "labels": {"category": "x|y"}} for i in range(3)]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"name": "m", "source": "s", "licence": "l", "prompts": prompts}))
    found = call("safety", f"settings.safety.prompts_file={file}")
    lines = (found.path / "probes.md").read_text().splitlines()
    (line,) = [line for line in lines if "x\\|y" in line and "p_unsafe" in line]
    assert line.replace("\\|", "").count("|") == 10


def row(found: ProbeRun, metric: str, part: str = "") -> pd.Series:
    """Return the row of the whole, or of a part."""
    rows = table(found)
    return rows[(rows["metric"] == metric) & (rows["part"] == part)].iloc[0]


def psnr_inside(found: ProbeRun) -> dict[str, float]:
    rows = table(found)
    return dict(zip(*(rows[(rows["metric"] == "psnr")][key] for key in ("part", "value")), strict=True))


def table(found: ProbeRun) -> pd.DataFrame:
    return pd.read_csv(found.path / "probes.csv", keep_default_na=False, na_values=[""]).assign(
        part=lambda rows: rows["part"].fillna("")
    )
