"""Where weights are taken from is no identity, their content is: also for a run that is finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import sd2eval
from sd2eval.errors import InputError

SMALL = ("experiment=smoke", "checkpoints=[512-base]", "progress=false", "images=none")
METRICS = "protocol.metrics=[fd_mini,clip_mini]"
WEIGHTS = Path(sd2eval.__file__).parent / "mini" / "weights" / "classifier"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd2eval.run_sweep(*SMALL, METRICS, f"out={tmp_path_factory.mktemp('done') / 'run'}").path


def copy(folder: Path, name: str = "", value: float = 0.0) -> Path:
    """Return a copy of the classifier's weights in which one number is another."""
    shutil.copytree(WEIGHTS, folder / "classifier")
    if name:
        (file,) = (folder / "classifier").glob("*.safetensors")
        state = load_file(file)
        tensor = next(state[key] for key in sorted(state) if name in key)
        tensor.view(-1)[0] = value
        save_file(state, file)
    return folder


def test_a_finished_run_is_not_taken_for_one_with_other_weights(done: Path, tmp_path: Path) -> None:
    other = copy(tmp_path / "other", "bias", 3.0)
    with pytest.raises(InputError, match=r"out holds another run .*extractor/distance"):
        sd2eval.run_sweep(*SMALL, METRICS, f"out={done}", f"protocol.distance.source={other}")
    same = copy(tmp_path / "same")
    before = (done / "results.csv").read_bytes()
    sd2eval.run_sweep(*SMALL, METRICS, f"out={done}", f"protocol.distance.source={same}")
    assert (done / "results.csv").read_bytes() == before


def test_a_number_that_is_none_is_refused_even_where_no_feature_needs_it(tmp_path: Path) -> None:
    torn = copy(tmp_path / "torn", "head", float("nan"))
    with pytest.raises(InputError, match=r"mini_classifier.*NaN or infinity in .*head"):
        sd2eval.run_sweep(*SMALL, METRICS, f"out={tmp_path / 'run'}", f"protocol.distance.source={torn}")
    assert not (tmp_path / "run").exists()


def test_a_network_that_takes_no_such_size_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    words = ["experiment=smoke", "checkpoints=[512-base,768-v]", "protocol.fit=none", "progress=false"]
    with pytest.raises(InputError, match="takes 64x64 images and does not resize, got 96x96"):
        sd2eval.run_sweep(*words, f"out={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
