"""Another package adds a metric: `tests/plugin_example`, installed by pip, used, and uninstalled again."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import sd2eval
from sd2eval import report
from sd2eval.config import digest, from_overrides, identity_fields
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from tests import damage
from tests.installed import EXAMPLE, ROOT, declare, found_here, install, python, verb

METRICS = "protocol.metrics=[fd_mini,clip_mini,brightness]"
SMOKE = ("sweep", "experiment=smoke", METRICS, "checkpoints=[512-base]", "progress=false")
REC = ("rec601", "rec709")
REC601 = (0.299, 0.587, 0.114)
PACKAGE = EXAMPLE / "sd2eval_brightness"
GONE = "no installed package declares brightness: .*made with sd2eval-brightness 1.0"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example is installed in."""
    return install(EXAMPLE, tmp_path_factory.mktemp("plugin") / "site")


@pytest.fixture(scope="module")
def finished(site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with the example's metric, and what the sweep printed."""
    folder = tmp_path_factory.mktemp("runs")
    done = verb(*SMOKE, "out=run", site=site, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run", done.stdout


@pytest.fixture
def run(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def luma(folder: Path) -> np.ndarray:
    """Brightness of each PNG of a cell, by hand."""
    pixels = [np.asarray(Image.open(file), dtype=np.float64) for file in sorted(folder.glob("*.png"))]
    return np.array([(image @ np.array(REC601)).mean() / 255 for image in pixels])


def test_the_sweep_measures_what_the_pngs_say(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    results = pd.read_csv(folder / "results.csv")
    images = {prompt["image_id"] for prompt in json.loads((folder / "prompts.json").read_text())}
    assert len(images) == 8  # no two captions share an image, so the standard error is sd / sqrt(n)
    for scale in (1.5, 3.0):
        cell = results[(results["metric"] == "brightness") & (results["guidance_scale"] == scale)].iloc[0]
        each = luma(folder / "images" / f"512-base_g{scale:g}")
        assert cell["value"] == pytest.approx(each.mean(), rel=1e-6)
        assert cell["stderr"] == pytest.approx(each.std(ddof=1) / np.sqrt(8), rel=1e-5)
        assert (cell["n"], cell["direction"], cell["unit"]) == (8, "higher", "share of white")


def test_the_record_names_the_plugin_and_what_it_measured_with(finished: tuple[Path, str]) -> None:
    record = json.loads((finished[0] / "run.json").read_text())
    assert record["versions"]["sd2eval-brightness"] == "1.0"
    assert re.fullmatch("[0-9a-f]{64}", record["digests"]["extractor/brightness"])
    assert record["identity_fields"]["protocol.extractors.brightness.model"] == "rec601"


def test_a_plugin_that_took_no_part_is_not_recorded(site: Path, tmp_path: Path) -> None:
    code = (
        "from sd2eval.config import from_overrides; from sd2eval.provenance import versions;"
        "print(*('sd2eval-brightness' in versions(from_overrides(*words)[0].protocol)"
        f" for words in ([], ['{METRICS}'])))"
    )
    assert python("-c", code, site=site, cwd=tmp_path).stdout.split() == ["False", "True"]


def test_sweep_and_report_show_it(finished: tuple[Path, str], site: Path, run: Path) -> None:
    done = verb("report", str(run), site=site, cwd=run.parent)
    assert (done.returncode, done.stderr) == (0, "")
    for printed in (finished[1], done.stdout):
        (head,) = (line for line in printed.splitlines() if line.split() == ["brightness"])
        assert head.strip() == "brightness"


def test_its_settings_are_part_of_what_a_run_is(site: Path) -> None:
    with found_here(site):
        told = [from_overrides(METRICS, f"protocol.extractors.brightness.model={m}")[0] for m in REC]
    first, second = (identity_fields(config.protocol) for config in told)
    differing = [key for key in first if first[key] != second[key]]
    assert len(differing) == 1
    assert digest(first) != digest(second)


def test_its_settings_are_checked_by_itself_and_by_the_schema(site: Path) -> None:
    with found_here(site):
        config, _ = from_overrides(METRICS, "protocol.extractors.brightness.model=rec2020")
        with pytest.raises(
            InputError, match=r"^extractor 'brightness': model=rec2020; allowed: rec601, rec709$"
        ):
            load_extractor(config.protocol.extractor("brightness"), torch.device("cpu"))
        with pytest.raises(InputError, match=r"^protocol.extractors.brightness: Key 'colour' not in"):
            from_overrides(METRICS, "protocol.extractors.brightness.colour=red")


def test_its_extractor_has_the_digest_of_its_weights(site: Path) -> None:
    with found_here(site):
        told = [from_overrides(METRICS, f"protocol.extractors.brightness.model={m}")[0] for m in REC]
        found = [load_extractor(c.protocol.extractor("brightness"), torch.device("cpu")) for c in told]
    assert len({extractor.digest for extractor in found}) == 2


def test_compare_compares_it(site: Path, run: Path) -> None:
    words = ("compare", str(run), "a=@1.5", "b=@3", "metrics=brightness", "json=true")
    done = verb(*words, site=site, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    a, b = (luma(run / "images" / f"512-base_g{scale}") for scale in ("1.5", "3"))
    assert row["difference"] == pytest.approx((b - a).mean(), rel=1e-4)
    assert row["stderr"] == pytest.approx((b - a).std(ddof=1) / np.sqrt(8), rel=1e-4)


def test_help_lists_it_beside_those_of_a_config_dir_without_torch(site: Path, tmp_path: Path) -> None:
    (tmp_path / "own" / "extractor").mkdir(parents=True)
    shutil.copy(PACKAGE / "conf/extractor/brightness.yaml", tmp_path / "own/extractor/darkness.yaml")
    code = (
        "import sys; from sd2eval.__main__ import main\n"
        "try: main(['sweep', '--help', '--config-dir', 'own'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    *lines, torch = python("-c", code, site=site, cwd=tmp_path).stdout.splitlines()
    assert torch == "False"
    words = re.findall(r"\w+", " ".join(lines))
    assert words.count("brightness") == 2  # the metric, and the extractor
    assert "darkness" in words
    without = verb("sweep", "--help", site=None, cwd=tmp_path).stdout
    assert "brightness" not in without


def test_its_modules_can_be_imported_first(site: Path, tmp_path: Path) -> None:
    """As its author's own tests do: each must find what it is made of, and the other way round."""
    for first in ("metrics", "extractor"):
        code = f"import sd2eval_brightness.{first}; from sd2eval.metrics import METRICS; print(*METRICS)"
        done = python("-c", code, site=site, cwd=tmp_path)
        assert "brightness" in done.stdout.split(), done.stderr[-2000:]


def test_a_run_outlives_its_plugin(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = pd.read_csv(run / "results.csv")
    with caplog.at_level(logging.WARNING, "sd2eval"):
        report.write_tables(run)
        read = sd2eval.load_run(run)
    (line,) = caplog.messages
    assert re.search(GONE, line)
    key = ["checkpoint", "guidance_scale", "metric"]
    pd.testing.assert_frame_equal(*(r.sort_values(key, ignore_index=True) for r in (read.results, before)))
    (run / "results.csv").unlink()
    (run / "results.json").unlink()
    assert set(sd2eval.load_run(run).results["metric"]) == {"fd_mini", "clip_mini"}


def test_without_the_plugin_verbs_say_so_in_one_line(run: Path) -> None:
    done = verb("report", str(run), site=None, cwd=run.parent)
    assert done.returncode == 0
    assert re.fullmatch(rf"sd2eval: .*{GONE}\n", done.stderr)
    assert "FD (mini)" in done.stdout
    notes = sd2eval.compare_runs(run, a="@1.5", b="@3").notes
    assert any(re.search(GONE, note) for note in notes)
    done = verb(*SMOKE, f"out={run}", site=None, cwd=run.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("sd2eval: protocol.metrics=brightness: allowed: fid,")


def test_a_run_with_nothing_that_is_known_can_still_be_read(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["config"]["protocol"]["metrics"] = ["brightness"]
    damage.rewrite(run, "run.json", record)
    done = verb("report", str(run), site=None, cwd=run.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(rf"sd2eval: .*{GONE}\n", done.stderr)
    assert set(pd.read_csv(run / "results.csv")["metric"]) == {"brightness"}


@pytest.mark.parametrize("words", ["report run", "compare run a=@1.5 b=@3", "reproduce run"])
def test_another_plugin_that_is_broken_is_named_by_verbs_that_read_a_run(run: Path, words: str) -> None:
    text = {"broken.py": "import no_such_module"}
    other = declare(run.parent / "other", text, {"sd2eval.metrics/broken": "broken"})
    done = verb(*words.split(), site=other, cwd=run.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"sd2eval: plug-in broken \(faulty 1\.0\): cannot be imported .*\n", done.stderr)


def test_the_same_files_work_inside_the_package(tmp_path: Path) -> None:
    """One file for the metric, one for the extractor, one YAML; nothing else is touched."""
    skip = shutil.ignore_patterns("weights", "__pycache__")
    for name in ("sd2eval", "conf", "runners", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    shutil.copytree(ROOT / "sd2eval" / "weights", tmp_path / "sd2eval" / "weights")
    shutil.copy(PACKAGE / "metrics.py", tmp_path / "sd2eval/metrics/declared/brightness.py")
    shutil.copy(PACKAGE / "extractor.py", tmp_path / "sd2eval/extractors/luma.py")
    shutil.copy(PACKAGE / "conf/extractor/brightness.yaml", tmp_path / "conf/extractor/")
    code = (
        "import sd2eval.conf; from sd2eval.plugins import extractor_kinds;"
        "from sd2eval.config import from_overrides;"
        f"network = from_overrides('{METRICS}')[0].protocol.extractors['brightness'];"
        "print(network.model, extractor_kinds()[network.kind], *sd2eval.conf.__path__)"
    )
    done = python("-c", code, site=tmp_path, cwd=tmp_path)
    expected = ["rec601", "sd2eval.extractors.luma", str(tmp_path / "conf")]
    assert done.stdout.split() == expected, done.stderr[-2000:]


def test_the_documented_files_are_the_example() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    shown = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    files = [file for file in EXAMPLE.rglob("*") if file.suffix in (".py", ".toml", ".yaml")]
    there = {str(file.relative_to(EXAMPLE)): file.read_text() for file in files if file.name != "__init__.py"}
    assert shown == there
