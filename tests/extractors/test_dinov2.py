"""DINOv2 as dgm-eval takes it: a tiny network of the published class, against others' preprocessing."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors import dinov2, load_extractor
from sd2eval.weights.published import published
from tests.extractors.captioned import CPU, scenes
from tests.hub_server import connect, serve

Array = NDArray[np.float64]
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
WEIGHTS = "model.safetensors"


def config(source: Path | None, batch_size: int = 2, preprocess: str | None = None) -> ExtractorConfig:
    return ExtractorConfig(
        name="dinov2_vit_l_14",
        kind="dinov2",
        model="facebook/dinov2-large",
        pretrained=None,
        source=source and str(source),
        preprocess=preprocess,
        dtype="float32",
        batch_size=batch_size,
    )


def saved(folder: Path, image_size: int = 518) -> Path:
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(image_size=image_size, **CONFIG))
    for name, parameter in model.named_parameters():  # fresh ones would hardly look at the positions
        torch.nn.init.normal_(parameter, std=5.0 if "position" in name else 0.7)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with the published one's 37 x 37 positions, in the layout of its repository."""
    return saved(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def features(source: Path, images: NDArray[np.uint8], batch_size: int = 2) -> NDArray[np.float32]:
    extractor = load_extractor(config(source, batch_size), CPU)
    assert extractor.images is not None
    return extractor.images(images)["features"]


def cubic(distance: Array) -> Array:
    """Keys' kernel with a = -0.75, which torch and DINOv2's authors have."""
    a, x = -0.75, np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resampling(before: int, after: int, step: float) -> Array:
    """Matrix [after, before] of cubic interpolation with a step, its border repeated."""
    matrix = np.zeros((after, before))
    for row in range(after):
        at = (row + 0.5) * step - 0.5
        for index in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            matrix[row, np.clip(index, 0, before - 1)] += cubic(np.array(at - index))
    return matrix


def by_hand(learned: torch.Tensor, step: float, side: int = 16) -> torch.Tensor:
    grid = learned[0, 1:].double().numpy().reshape(37, 37, -1)
    matrix = resampling(37, side, step)
    fitted = np.einsum("ia,jb,abd->ijd", matrix, matrix, grid).reshape(1, side * side, -1)
    return torch.cat([learned[:, :1], torch.from_numpy(fitted).float()], dim=1)


def reference(folder: Path, pixels: torch.Tensor, step: float = 37 / 16.1) -> NDArray[np.float32]:
    """The class token of transformers' network on prepared pixels, with positions interpolated by hand."""
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(folder).eval()
    learned = model.embeddings.position_embeddings.detach()
    model.embeddings.position_embeddings = torch.nn.Parameter(by_hand(learned, step))
    with torch.inference_mode():
        return model(pixels).pooler_output.numpy()


def processed(images: NDArray[np.uint8]) -> torch.Tensor:
    """Transformers' own processor of DINOv2's checkpoints, made to squeeze to 224, not to crop."""
    from transformers import BitImageProcessorPil

    processor = BitImageProcessorPil(
        size={"height": 224, "width": 224},
        resample=3,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return processor(list(images), return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("shape", [(224, 224), (64, 64), (512, 512), (96, 300)])
def test_the_input_is_what_another_implementation_of_the_same_preprocessing_makes(
    shape: tuple[int, int],
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    torch.testing.assert_close(dinov2.prepare(images), processed(images), rtol=0, atol=1e-5)


def test_shrinking_has_antialiasing() -> None:
    stripes = np.zeros((1, 448, 448, 3), np.uint8)
    stripes[:, :, ::2] = 255  # finer than 224 pixels can show: without antialiasing black, white or stripes
    grey = (127.5 / 255 - 0.485) / 0.229
    assert abs(float(dinov2.prepare(stripes)[0, 0, :, 8:-8].mean()) - grey) < 0.05
    assert float(dinov2.prepare(stripes)[0, 0, :, 8:-8].std()) < 0.1


@pytest.mark.parametrize("side", [16, 4])
def test_positions_are_interpolated_with_the_authors_step(side: int) -> None:
    learned = torch.randn(1, 1 + 37 * 37, 6, generator=torch.Generator().manual_seed(0))
    got = dinov2.positions(learned, side)
    torch.testing.assert_close(got, by_hand(learned, 37 / (side + 0.1), side), rtol=0, atol=1e-4)


def test_features_are_the_class_token_with_positions_as_the_authors_interpolate_them(folder: Path) -> None:
    images = scenes(3, 96)
    got = features(folder, images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference(folder, processed(images)), rtol=1e-4, atol=1e-4)


def test_the_positions_that_transformers_would_interpolate_give_other_features(folder: Path) -> None:
    from transformers import Dinov2Model

    images = scenes(3, 96)
    model = Dinov2Model.from_pretrained(folder).eval()
    with torch.inference_mode():
        theirs = model(processed(images)).pooler_output.numpy()
    np.testing.assert_allclose(reference(folder, processed(images), 37 / 16), theirs, rtol=1e-4, atol=1e-4)
    assert np.abs(features(folder, images) - theirs).max() > 0.05


def test_torch_fidelity_gives_the_same_where_nothing_is_resized(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    class Fetched(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(reference(folder, pixels))

    monkeypatch.setattr(torch.hub, "load", lambda *_: Fetched())  # the authors' code is not on this machine
    monkeypatch.setenv("XFORMERS_DISABLED", "1")  # it sets that itself, and leaves it
    images = scenes(2, 224)
    theirs = FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    want = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))[0].numpy()
    np.testing.assert_allclose(features(folder, images), want, rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_batch_or_order(folder: Path) -> None:
    images = scenes(5, 40)
    whole = features(folder, images, 5)
    np.testing.assert_allclose(features(folder, images, 2), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features(folder, images[::-1])[::-1], whole, rtol=1e-4, atol=1e-5)


def test_positions_of_224_pixels_stay_as_they_are(tmp_path: Path) -> None:
    learned = torch.randn(1, 257, 4)
    assert torch.equal(dinov2.positions(learned, 16), learned)
    assert features(saved(tmp_path, 224), scenes(1)).shape == (1, 32)


def _change(folder: Path, name: str, value: float | None) -> None:
    state = load_file(folder / WEIGHTS)
    if value is None:
        del state[name]
    else:
        state[name].view(-1)[0] = value
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("layernorm.weight", None, r"1 tensors are missing \(first: layernorm.weight\)"),
        ("layernorm.weight", float("nan"), "NaN or infinity in its tensor layernorm.weight"),
        ("embeddings.cls_token", float("inf"), "NaN or infinity in its tensor embeddings.cls_token"),
    ],
)
def test_weights_that_are_incomplete_or_not_finite_are_refused(
    copy: Path, name: str, value: float | None, line: str
) -> None:
    _change(copy, name, value)
    with pytest.raises(InputError, match=line):
        load_extractor(config(copy), CPU)


def test_the_digest_is_of_the_weights_alone(folder: Path, copy: Path) -> None:
    before = load_extractor(config(folder), CPU).digest
    assert load_extractor(config(copy, batch_size=1), CPU).digest == before
    _change(copy, "layernorm.weight", 0.125)
    assert load_extractor(config(copy), CPU).digest != before


def test_a_truncated_file_is_one_line(copy: Path) -> None:
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cannot be loaded") as caught:
        load_extractor(config(copy), CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_config_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_extractor(config(copy), CPU)


def test_positions_that_fill_no_square_are_refused() -> None:
    from transformers import Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(image_size=(518, 532), **CONFIG))
    with pytest.raises(InputError, match="1406 patches, which fill no square"):
        dinov2._fit_positions(model.embeddings, Path("folder"))


def test_another_preprocessing_is_refused_instead_of_ignored(folder: Path) -> None:
    with pytest.raises(InputError, match=r"preprocess must be null .* not 'crop'"):
        load_extractor(config(folder, preprocess="crop"), CPU)


def test_without_a_source_the_weights_are_the_published_ones_and_no_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as hub:
        connect(hub, tmp_path / "hub", monkeypatch)
        for name in (WEIGHTS, "config.json"):
            hub.put("facebook/dinov2-large", name, (folder / name).read_bytes(), large=name == WEIGHTS)
        with pytest.raises(InputError, match=f"instead of {published()['dinov2_vit_l_14'].sha256}"):
            load_extractor(config(None), CPU)


def test_without_a_source_the_config_comes_with_the_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SimpleNamespace(name=None)

    def obtain(name: str) -> Path:
        asked.name = name
        return folder / WEIGHTS

    monkeypatch.setattr(dinov2, "obtain", obtain)
    assert load_extractor(config(None), CPU).digest == load_extractor(config(folder), CPU).digest
    assert asked.name == "dinov2_vit_l_14"
    assert published()[asked.name].file == WEIGHTS
    assert "config.json" in published()[asked.name].companions
