"""Plug-ins that are not as docs/plugins.md says: one line that names the package, never a traceback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sd2eval.config import ExtractorConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.metrics import METRICS, Metric, mean_of_images
from sd2eval.networks import Networks, extract
from tests.installed import EXAMPLE, declare, found_here, install, verb

IMPORTS = "from dataclasses import replace\nfrom sd2eval.metrics import Metric, mean_of_images\n"
RIGHT = (
    "RIGHT = Metric(name='right', label='right', describes='', direction='higher', unit='', kind='other',\n"
    "    extractor='right', output='value', estimate=mean_of_images)\n"
)
HERE = r"faulty_metrics \(faulty 1\.0\)"


def metrics_of(site: Path, text: str) -> Path:
    """A distribution whose module of metrics holds this text."""
    return declare(site, {"faulty_metrics.py": text}, {"sd2eval.metrics/faulty": "faulty_metrics"})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "import no_such_module",
            r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_module'\)",
        ),
        ("raise SystemExit('bye')", r"cannot be imported \(SystemExit: bye\)"),
        (
            "raise ValueError('two\nlines')".replace("\n", "\\n"),
            r"cannot be imported \(ValueError: two lines\)",
        ),
        ("", "METRICS must be a sequence"),
        ("METRICS = 3", "METRICS must be a sequence"),
        ("METRICS = ()", "METRICS must be a sequence"),
        ("METRICS = ['fid']", "METRICS must be a sequence"),
        (f"{IMPORTS}{RIGHT}METRICS = RIGHT", "METRICS must be a sequence"),
        (f"{IMPORTS}{RIGHT}METRICS = [RIGHT, RIGHT]", "metric right: declared by"),
        (
            f"{IMPORTS}{RIGHT}METRICS = [replace(RIGHT, name='fid')]",
            "metric fid: declared by .*declared.fid and",
        ),
        (
            f"{IMPORTS}{RIGHT}METRICS = [replace(RIGHT, kind='paired')]",
            "right: kind is 'paired'; allowed: dist",
        ),
        (f"{IMPORTS}{RIGHT}METRICS = [replace(RIGHT, direction='up')]", "'up'; allowed: higher, lower"),
        (f"{IMPORTS}{RIGHT}METRICS = [replace(RIGHT, against='images')]", "against is 'images'"),
        (f"{IMPORTS}{RIGHT}METRICS = [replace(RIGHT, extractor=None)]", "`extractor` must name a YAML"),
        (f"{IMPORTS}{RIGHT}METRICS = [replace(RIGHT, against='reference')]", "output is 'value'.*`features`"),
    ],
)
def test_faulty_metrics_are_named(tmp_path: Path, text: str, line: str) -> None:
    with found_here(metrics_of(tmp_path, text)), pytest.raises(InputError, match=line) as caught:
        list(METRICS)
    assert re.search(HERE, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_right_declaration_is_accepted(tmp_path: Path) -> None:
    with found_here(metrics_of(tmp_path, f"{IMPORTS}{RIGHT}METRICS = [RIGHT]")):
        assert METRICS["right"].extractor == "right"
    assert "right" not in METRICS


def test_a_declaration_can_be_varied_as_documented(tmp_path: Path) -> None:
    text = (
        "from dataclasses import replace\nfrom sd2eval.metrics.declared.fid import FID\n"
        "METRICS = [replace(FID, name='fd_mine', label='FD (mine)', extractor='mine', needs=('my_kind',))]"
    )
    with found_here(metrics_of(tmp_path, text)):
        assert next(iter(METRICS)) == "fid"  # the axis of the figure stays
        assert METRICS["fd_mine"].estimate is METRICS["fid"].estimate


def test_a_metric_without_settings_for_its_extractor_is_refused(tmp_path: Path) -> None:
    with found_here(metrics_of(tmp_path, f"{IMPORTS}{RIGHT}METRICS = [RIGHT]")):
        with pytest.raises(InputError, match=r"protocol.metrics=right: it needs extractor/right.yaml"):
            from_overrides("protocol.metrics=[right]")
        assert from_overrides()[0].protocol.metrics  # who does not ask for it is not disturbed


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, "cannot be imported"),
        ({"__init__.py": ""}, "holds no settings"),
        (
            {"__init__.py": "", "extractor/inception.yaml": ""},
            "extractor/inception.yaml exists already, in sd2eval",
        ),
        ({"__init__.py": "", "sweep.yaml": ""}, "sweep.yaml exists already, in sd2eval"),
        (
            {"__init__.py": "", "extractor/schema.yaml": ""},
            "extractor/schema.yaml exists already, in sd2eval",
        ),
    ],
)
def test_faulty_settings_are_named(tmp_path: Path, files: Mapping[str, str], line: str) -> None:
    texts = {f"faulty_conf/{name}": text for name, text in files.items()}
    site = declare(tmp_path, texts, {"sd2eval.conf/faulty": "faulty_conf"})
    with found_here(site), pytest.raises(InputError, match=rf"faulty_conf \(faulty 1\.0\): {line}"):
        from_overrides()


def test_settings_of_two_packages_do_not_hide_each_other(tmp_path: Path) -> None:
    files = {f"{name}/{file}": "" for name in ("one", "two") for file in ("__init__.py", "extractor/x.yaml")}
    site = declare(tmp_path, files, {"sd2eval.conf/one": "one", "sd2eval.conf/two": "two"})
    with (
        found_here(site),
        pytest.raises(InputError, match=r"two .*: extractor/x.yaml exists already, in one "),
    ):
        from_overrides()


def test_a_kind_that_exists_already_is_refused(tmp_path: Path) -> None:
    site = declare(tmp_path, {"mine.py": ""}, {"sd2eval.extractors/open_clip": "mine"})
    line = r"mine \(faulty 1\.0\): extractor kind 'open_clip' exists already, in sd2eval.extractors.open_clip"
    with found_here(site), pytest.raises(InputError, match=line):
        from_overrides()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import no_such_module", "cannot be imported"),
        ("", r"has no function load\(config, device\)"),
        ("def load(config, device): return None", "must return a .*Extractor, not NoneType"),
        (
            "from sd2eval.extractors.base import Extractor\n"
            "def load(config, device): return Extractor(name='x', digest='1')",
            "digest of extractor 'x' is no SHA-256",
        ),
    ],
)
def test_a_faulty_extractor_is_named(tmp_path: Path, text: str, line: str) -> None:
    site = declare(tmp_path, {"mine.py": text}, {"sd2eval.extractors/mine": "mine"})
    settings: dict[str, Any] = dict.fromkeys(("model", "pretrained", "source", "preprocess"))
    config = ExtractorConfig(name="x", kind="mine", dtype="float32", batch_size=1, **settings)
    with found_here(site), pytest.raises(InputError, match=rf"plug-in mine \(faulty 1\.0\): .*{line}"):
        load_extractor(config, torch.device("cpu"))


VALUE = Metric(
    name="value",
    label="",
    describes="",
    direction="higher",
    unit="",
    kind="other",
    extractor="mine",
    output="value",
    estimate=mean_of_images,
)
NAN = np.array([1, np.nan, 3], np.float32)


def extracted(given: Mapping[str, Any], valid: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """What is taken of three images from an extractor that gives this."""
    mine = Extractor(name="mine", digest="0" * 64, images=lambda images: given)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    return extract(Networks({"mine": mine}, [VALUE]), [VALUE], images, ["a"] * 3, valid)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"features": np.ones((3, 2), np.float32)}, "gives features, but no value"),
        ({"value": np.ones(2, np.float32)}, r"float32 \[N\]; got float32 \[2\] for 3 images"),
        ({"value": np.ones((3, 1), np.float32)}, r"got float32 \[3, 1\]"),
        ({"value": np.ones(3)}, r"got float64 \[3\]"),
        ({"value": torch.ones(3)}, "got Tensor"),
        ({"value": NAN}, "`value` is NaN or infinite for 1 of 3 images"),
        ({"value": np.full(3, np.inf, np.float32)}, "for 3 of 3 images"),
    ],
)
def test_a_wrong_output_never_becomes_a_number(given: Mapping[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=rf"^extractor 'mine': .*{line}"):
        extracted(given)


def test_what_comes_of_an_invalid_image_does_not_matter() -> None:
    found = extracted({"value": NAN}, np.array([True, False, True]))
    np.testing.assert_array_equal(found["mine.value"], NAN)


def test_an_extractor_is_tried_before_anything_is_drawn(tmp_path: Path) -> None:
    source = Path(shutil.copytree(EXAMPLE, tmp_path / "example"))
    file = source / "sd2eval_brightness" / "extractor.py"
    file.write_text(file.read_text().replace(".mean(dim=(1, 2))", ".mean(dim=2)"))
    site = install(source, tmp_path / "site")
    words = ("experiment=smoke", "protocol.metrics=[brightness]", "progress=false", "out=run")
    done = verb("sweep", *words, site=site, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"sd2eval: extractor 'brightness': `value` must be .*\[2, 64\] for 2 images\n", done.stderr
    )
    assert not list(tmp_path.glob("run/shards/*"))


@pytest.mark.parametrize("words", [["sweep", "--help"], ["sweep"], ["sweep", "dry_run=true"]])
def test_a_verb_that_meets_it_ends_with_one_line(tmp_path: Path, words: list[str]) -> None:
    done = verb(*words, site=metrics_of(tmp_path, "import no_such_module"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"sd2eval: plug-in {HERE}: cannot be imported .*\n", done.stderr)


@pytest.mark.parametrize("words", ["--help", "report --help", "models --help"])
def test_help_that_needs_no_plugin_is_not_disturbed(tmp_path: Path, words: str) -> None:
    done = verb(*words.split(), site=metrics_of(tmp_path, "import no_such_module"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
