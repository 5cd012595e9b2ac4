"""Inception-v3 against the four programs that FIDs are quoted from: same images, same (random) weights."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.other_fids import OTHERS, Other, exact_frechet, torchmetrics_network, write_images
from benchmarks.random_inception import Images, save_random_inception, synthetic_images
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors import inception, load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.images import load_rgb, square
from sd2eval.metrics import METRICS, Reference, evaluate

REAL = Path(__file__).resolve().parents[3] / "shared" / "coco" / "val2017"
CPU = torch.device("cpu")
each = pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.distribution)
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


def settings(source: Path | None, preprocess: str | None = None, **others: object) -> ExtractorConfig:
    keys: dict[str, object] = {
        "name": "mine",
        "kind": "inception",
        "model": "inception-v3-compat",
        "pretrained": None,
        "source": None if source is None else str(source),
        "preprocess": preprocess,
        "dtype": "float32",
        "batch_size": 4,
    }
    return ExtractorConfig(**keys | others)  # type: ignore[arg-type]


def extract(config: ExtractorConfig, batch: Images) -> dict[str, np.ndarray]:
    extractor = loaded(str(config.source), config.preprocess, config.dtype, config.batch_size)
    assert extractor.images is not None
    return dict(extractor.images(batch))


@lru_cache(maxsize=4)
def loaded(source: str, preprocess: str | None, dtype: str, batch_size: int) -> Extractor:
    return load_extractor(settings(Path(source), preprocess, dtype=dtype, batch_size=batch_size), CPU)


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    """Compare by the largest difference, in units of how much the features differ between images."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * theirs.std(0).mean()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_inception(tmp_path_factory.mktemp("weights") / "random.pth")


def test_the_random_weights_are_neither_dead_nor_exploding(weights: Path) -> None:
    found = extract(settings(weights), synthetic_images(6, seed=3))
    assert (found["features"] > 0).mean() > 0.5
    assert 0.05 < found["features"].std(0).mean() < 5
    assert 1 < found["logits"].std(0).mean() < 30


@each
@pytest.mark.parametrize("size", [64, 411])
def test_features_are_those_of_the_program_whose_preprocessing_is_named(
    other: Other, size: int, weights: Path, tmp_path: Path
) -> None:
    images = synthetic_images(4, size, seed=size)
    theirs = other.features(write_images(tmp_path, images), weights)
    close(extract(settings(weights, other.preprocess), images)["features"], theirs)


@each
@pytest.mark.skipif(not REAL.is_dir(), reason="the COCO files are not in ../shared/coco")
def test_on_photographs_features_agree_and_fids_to_a_millionth(
    other: Other, weights: Path, tmp_path: Path
) -> None:
    """Their features with the exact root: their own loses digits where images are fewer than dimensions."""
    images = np.stack([square(load_rgb(file), 256) for file in sorted(REAL.glob("*.jpg"))[:8]])
    ours = extract(settings(weights, other.preprocess), images)["features"]
    theirs = other.features(write_images(tmp_path, images), weights)
    close(ours, theirs)
    fid = evaluate(METRICS["fid"], ours[:4], Reference(ours[4:])).value
    assert fid == pytest.approx(exact_frechet(theirs[:4], theirs[4:]), rel=1e-6)


def test_the_four_ways_of_resizing_are_four(weights: Path) -> None:
    images = synthetic_images(4, 411)
    found = [extract(settings(weights, name), images)["features"] for name in inception.PREPROCESS]
    for i, one in enumerate(found):
        for another in found[:i]:
            assert np.abs(one - another).max() > 1e-3 * one.std(0).mean()


def test_without_a_name_images_are_resized_as_torch_fidelity_does() -> None:
    batch = synthetic_images(2, 100)
    default = inception.PREPROCESS[inception.DEFAULT](batch, CPU)
    assert torch.equal(default, inception.like_torch_fidelity(batch, CPU))
    assert default.shape == (2, 3, 299, 299)
    assert default.dtype == torch.float32


def test_logits_are_those_without_bias_and_come_from_the_same_pass(weights: Path) -> None:
    batch = synthetic_images(3, 80, seed=8)
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    theirs = torchmetrics_network(weights, "logits_unbiased")(tensor).numpy()
    ours = extract(settings(weights, "torchmetrics"), batch)
    assert ours["logits"].shape == (3, 1008)
    close(ours["logits"], theirs, 1e-4)  # sums of 2,048 terms, each of them rounded
    biased = torchmetrics_network(weights, "logits")(tensor).numpy()
    assert np.abs(ours["logits"] - biased).max() > 0.1


def test_neither_batch_size_nor_order_changes_features(weights: Path) -> None:
    batch = synthetic_images(5, seed=4)
    whole = extract(settings(weights, batch_size=5), batch)
    reversed_in_twos = extract(settings(weights, batch_size=2), batch[::-1].copy())
    for name in whole:
        close(reversed_in_twos[name][::-1], whole[name], 1e-4)


@pytest.mark.parametrize(("dtype", "least", "most"), [("bfloat16", 1e-3, 0.2), ("float16", 1e-4, 0.02)])
def test_half_precision_is_of_the_network_and_near(
    weights: Path, dtype: str, least: float, most: float
) -> None:
    batch = synthetic_images(1, seed=6)
    exact, rough = extract(settings(weights), batch), extract(settings(weights, dtype=dtype), batch)
    for name, values in exact.items():
        assert rough[name].dtype == np.float32
        assert least < np.linalg.norm(rough[name] - values) / np.linalg.norm(values) < most


def refused(config: ExtractorConfig) -> str:
    with pytest.raises(InputError) as caught:
        load_extractor(config, CPU)
    line = str(caught.value)
    assert line.startswith("extractor 'mine': ")
    assert "\n" not in line
    return line


def test_an_unknown_way_of_resizing_is_refused_with_those_that_exist() -> None:
    line = refused(settings(None, "cleanfid"))
    assert "preprocess 'cleanfid' is unknown" in line
    assert all(name in line for name in inception.PREPROCESS)


def test_weights_that_are_cut_are_refused(weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    for length in (0, 1000, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        assert "cannot load its weights" in refused(settings(tmp_path / "cut.pth"))


def test_other_tensors_are_refused(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    changed: dict[str, dict[str, object]] = {
        "missing": {name: state[name] for name in state if name != "fc.weight"},
        "more": state | {"fc.extra": state["fc.bias"]},
        "reshaped": state | {"fc.weight": state["fc.weight"].T},
    }
    for name, tensors in changed.items():
        torch.save(tensors, tmp_path / f"{name}.pth")
        assert "holds no Inception-v3 with the FID's layers" in refused(settings(tmp_path / f"{name}.pth"))


class _Canary:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"fc.weight": _Canary(tmp_path / "ran")}, tmp_path / "evil.pth")
    assert "code besides tensors" in refused(settings(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_what_is_called_the_published_weights_must_be_them(weights: Path) -> None:
    line = refused(settings(weights, pretrained="inception"))
    assert "is not the published weights" in line
    assert "6726825d0af5f729" in line


def test_settings_that_name_no_weights_or_another_network_are_refused(weights: Path, tmp_path: Path) -> None:
    assert "neither `source` nor `pretrained`" in refused(settings(None))
    assert "is not on this machine" in refused(settings(tmp_path / "gone.pth"))
    assert "model 'inception-v4' is unknown" in refused(settings(weights, model="inception-v4"))
    assert "pretrained 'imagenet' is unknown" in refused(settings(weights, pretrained="imagenet"))


def test_without_a_copy_the_published_file_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, as all tests are: torch-fidelity's own download would be another error."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"^inception: HF_HUB_OFFLINE is set.*models fetch inception"):
        load_extractor(settings(None, pretrained="inception"), CPU)


def test_the_digest_tells_weights_apart(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save(state, tmp_path / "copy.pth")
    state["fc.weight"][0, 0] += 1e-3
    torch.save(state, tmp_path / "other.pth")
    same, other = (load_extractor(settings(tmp_path / f"{name}.pth"), CPU) for name in ("copy", "other"))
    assert load_extractor(settings(weights, "clean_fid"), CPU).digest == same.digest != other.digest
