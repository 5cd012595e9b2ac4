"""HPSv2 against OpenCLIP's own forward with the same weights, and torchvision's own transforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torchvision import transforms

from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.extractors.hpsv2 import FILE, pixels
from sd2eval.metrics import METRICS
from tests.extractors.captioned import CAPTIONS, CPU, config, scenes

MODEL = "tiny-of-the-hpsv2-tests"
SIZE = 28


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """OpenCLIP's ViT-H/14 made tiny, with weights that float16 holds exactly."""
    architecture = open_clip.get_model_config("ViT-H-14")
    architecture["embed_dim"] = 16
    architecture["vision_cfg"] |= {"layers": 2, "width": 32, "head_width": 16, "image_size": SIZE}
    architecture["text_cfg"] |= {"layers": 2, "width": 32, "heads": 2}
    file = tmp_path_factory.mktemp("architecture") / f"{MODEL}.json"
    file.write_text(json.dumps(architecture))
    open_clip.add_model_config(file)
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.02 * torch.randn_like(parameter)).half())
    return model.eval()


@pytest.fixture
def folder(network: Any, tmp_path: Path) -> Path:
    """The published layout: float16 under `state_dict`."""
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / FILE)
    return tmp_path


def extractor(folder: Path, **settings: Any) -> Extractor:
    return load_extractor(config("hpsv2", folder, model=MODEL, **settings), CPU)


def scores(found: Extractor, images: Any, captions: list[str]) -> Any:
    assert found.images
    assert found.texts
    return (found.images(images)["features"] * found.texts(captions)).sum(axis=1)


def authors(network: Any, images: Any, captions: list[str], *, antialias: bool = True) -> Any:
    """The score as its authors compute it: the diagonal of image by text, both of unit length, unscaled."""
    steps = [
        transforms.ToTensor(),
        transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC, antialias=antialias),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
    prepared = torch.stack([transforms.Compose(steps)(image) for image in images])
    with torch.inference_mode():
        seen, read, _ = network(prepared, open_clip.get_tokenizer("ViT-H-14")(captions))
    return torch.diagonal(seen @ read.T).numpy()


@pytest.mark.parametrize(("preprocess", "antialias"), [(None, True), ("antialias", True), ("aliased", False)])
def test_the_score_is_its_authors_own(
    network: Any, folder: Path, preprocess: str | None, antialias: bool
) -> None:
    want = authors(network, scenes(), CAPTIONS, antialias=antialias)
    found = extractor(folder, preprocess=preprocess)
    np.testing.assert_allclose(scores(found, scenes(), CAPTIONS), want, rtol=1e-4, atol=1e-6)


def test_the_metric_is_the_mean_raw_cosine_and_tables_show_a_hundredfold(network: Any, folder: Path) -> None:
    found = extractor(folder / FILE)
    assert found.images
    assert found.texts
    metric = METRICS["hpsv2"]
    estimate = metric.estimate(found.images(scenes())["features"], found.texts(CAPTIONS))
    assert estimate.value == pytest.approx(authors(network, scenes(), CAPTIONS).mean(), rel=1e-4)
    assert (metric.factor, metric.direction, metric.unit) == (100, "higher", "cosine")


def test_batches_and_order_change_nothing_and_captions_do(folder: Path) -> None:
    images, want = scenes(), scores(extractor(folder), scenes(), CAPTIONS)
    whole = extractor(folder, batch_size=16)
    np.testing.assert_allclose(scores(whole, images, CAPTIONS), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores(whole, images[::-1], CAPTIONS[::-1]), want[::-1], rtol=1e-4, atol=1e-6)
    assert (np.abs(scores(whole, images, CAPTIONS[1:] + CAPTIONS[:1]) - want) > 1e-3).all()


def test_the_longer_side_fills_the_input_and_zeros_the_rest() -> None:
    """The padding is black before it is normalised, and the odd line lies below."""
    image = scenes()[:, :43]
    found = pixels(image, SIZE, antialias=True)
    black = transforms.functional.normalize(
        torch.zeros(3, 3, SIZE, SIZE), open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    assert found.shape == (3, 3, SIZE, SIZE)
    rows = round(43 * SIZE / 48)
    top = (SIZE - rows) // 2
    assert (rows, top) == (25, 1)
    torch.testing.assert_close(found[:, :, :top], black[:, :, :top])
    torch.testing.assert_close(found[:, :, top + rows :], black[:, :, top + rows :])
    inside = transforms.functional.resize(
        torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255,
        [rows, SIZE],
        transforms.InterpolationMode.BICUBIC,
        antialias=True,
    )
    want = transforms.functional.normalize(
        inside, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    torch.testing.assert_close(found[:, :, top : top + rows], want)


def test_antialiasing_is_part_of_what_is_measured() -> None:
    fine = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    assert not torch.allclose(
        pixels(fine, SIZE, antialias=True), pixels(fine, SIZE, antialias=False), atol=0.1
    )


def test_the_digest_is_that_of_the_weights(folder: Path) -> None:
    before = extractor(folder).digest
    assert extractor(folder, batch_size=1).digest == before
    state = torch.load(folder / FILE, weights_only=True)["state_dict"]
    state["logit_scale"] += 1
    torch.save({"state_dict": state}, folder / FILE)
    assert extractor(folder).digest != before


def test_a_damaged_or_foreign_file_is_refused(folder: Path) -> None:
    file = folder / FILE
    whole, state = file.read_bytes(), torch.load(file, weights_only=True)["state_dict"]
    for wrong, line in (
        ({**state, "other": torch.ones(1)}, "1 tensors find no place (first: other)"),
        (
            {name: state[name] for name in state if name != "visual.proj"},
            "1 tensors are missing (first: visual.proj)",
        ),
        ({**state, "visual.proj": torch.ones(3, 3)}, "visual.proj has shape [3, 3], expected [32, 16]"),
    ):
        torch.save({"state_dict": wrong}, file)
        with pytest.raises(InputError) as error:
            extractor(folder)
        assert line in str(error.value)
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>", b"words"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=FILE):
            extractor(folder)
    file.unlink()
    with pytest.raises(InputError, match=f"no {FILE} in "):
        extractor(folder)


def test_what_no_one_can_load_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="preprocess must be one of null, antialias, aliased"):
        extractor(folder, preprocess="sharp")
    with pytest.raises(InputError, match="'ViT-Q-1' is no OpenCLIP architecture"):
        load_extractor(config("hpsv2", folder, model="ViT-Q-1"), CPU)
    with pytest.raises(InputError, match="neither `source` nor `pretrained`"):
        load_extractor(config("hpsv2", None, model=MODEL), CPU)
