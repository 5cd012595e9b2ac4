"""Mask R-CNN and Keypoint R-CNN: torchvision's own loading of the same weights is the truth."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection import (
    KeypointRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)

from sd2eval.probes.base import Unavailable
from sd2eval.probes.components import keypoint_rcnn, mask_rcnn
from tests.probes.making import loaded

SIDE = {"side": 48, "least": 0.0}
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 64, 80, 3), dtype=np.uint8)


def state_of(network: Any) -> dict[str, torch.Tensor]:
    """Random weights, stored in half precision, in which torchvision's networks give finite answers."""
    return {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def mask_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mask") / "mask.pth"
    torch.save(state_of(maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)), path)
    return path


@pytest.fixture(scope="module")
def keypoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Named as the published file's tensors are, which is older than today's layers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("keypoints") / "keypoints.pth"
    state = state_of(keypoint_rcnn.architecture())
    torch.save({former_name(name): value for name, value in state.items()}, path)
    return path


def former_name(name: str) -> str:
    name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", name)
    return name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")


def torchvisions(
    build: Callable[..., Any], weights: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, torch.Tensor]]:
    """What torchvision's own function answers, with its download replaced by a file."""
    state = torch.load(file, weights_only=True)
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: state)
    network = build(weights=weights, min_size=SIDE["side"], progress=False).eval()
    with torch.inference_mode():
        answers: list[dict[str, torch.Tensor]] = network(
            [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in IMAGES]
        )
    return answers


def test_mask_rcnn_finds_what_torchvisions_own_loading_finds(
    mask_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    expected = torchvisions(maskrcnn_resnet50_fpn_v2, weights, mask_file, monkeypatch)
    found = loaded("mask_rcnn", source=str(mask_file), options=SIDE | {"most": 1000}).detect(IMAGES)
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine) == len(theirs["scores"]) > 0
        order = theirs["scores"].argsort(descending=True)
        np.testing.assert_allclose([one.score for one in mine], theirs["scores"][order], rtol=1e-5)
        np.testing.assert_allclose([one.box for one in mine], theirs["boxes"][order], atol=1e-3)
        names = weights.meta["categories"]
        assert [one.label for one in mine] == [names[index] for index in theirs["labels"][order]]
        assert mine[0].mask is not None
        assert np.array_equal(mine[0].mask, (theirs["masks"][order[0], 0] > 0.5).numpy())


def test_keypoint_rcnn_finds_what_torchvisions_own_loading_finds(
    keypoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1
    expected = torchvisions(keypointrcnn_resnet50_fpn, weights, keypoint_file, monkeypatch)
    found = loaded("keypoint_rcnn", source=str(keypoint_file), options=SIDE).people(IMAGES)
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine) == len(theirs["scores"]) > 0
        order = theirs["scores"].argsort(descending=True)
        np.testing.assert_allclose([one.score for one in mine], theirs["scores"][order], rtol=1e-5)
        np.testing.assert_allclose(mine[0].points, theirs["keypoints"][order[0], :, :2], atol=1e-3)
        np.testing.assert_allclose(mine[0].certainty, theirs["keypoints_scores"][order[0]], atol=1e-4)


def test_of_a_kind_only_the_surest_are_told_and_none_that_is_unsure() -> None:
    answer = {
        "scores": torch.tensor([0.4, 0.9, 0.2, 0.8, 0.7]),
        "labels": torch.tensor([1, 1, 2, 2, 1]),
        "boxes": torch.arange(20.0).reshape(5, 4),
        "masks": torch.zeros(5, 1, 64, 80),
    }
    detector = mask_rcnn.MaskRCNN(
        name="fixed",
        digest="0" * 64,
        network=lambda batch: [answer for _ in batch],
        labels=("nothing", "cat", "dog"),
        device=torch.device("cpu"),
        batch_size=1,
        least=0.3,
        most=2,
    )
    found = detector.detect(IMAGES)
    assert len(found) == 1
    told = [(one.label, round(one.score, 1), one.box[0]) for one in found[0]]
    assert told == [("cat", 0.9, 4.0), ("dog", 0.8, 12.0), ("cat", 0.7, 16.0)]


@pytest.mark.parametrize(("kind", "own"), [("mask_rcnn", "mask_file"), ("keypoint_rcnn", "keypoint_file")])
def test_a_file_that_was_cut_is_refused_in_one_line(
    kind: str, own: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = request.getfixturevalue(own).read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unavailable, match=r"^component '\w+': .*cut\.pth: .*is it whole\?$"):
        loaded(kind, source=str(cut))


@pytest.mark.parametrize(("kind", "other"), [("mask_rcnn", "keypoint_file"), ("keypoint_rcnn", "mask_file")])
def test_another_networks_weights_are_refused_in_one_line(
    kind: str, other: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(Unavailable, match="holds the weights of another network") as refused:
        loaded(kind, source=str(request.getfixturevalue(other)))
    assert "\n" not in str(refused.value)


def test_weights_with_nan_are_refused(mask_file: Path, tmp_path: Path) -> None:
    state = torch.load(mask_file, weights_only=True)
    state["backbone.body.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(Unavailable, match=r"NaN or infinity in its tensor backbone\.body\.conv1\.weight"):
        loaded("mask_rcnn", source=str(tmp_path / "nan.pth"))


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
def test_without_weights_the_line_says_how_to_get_them(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=rf"python -m sd2eval models fetch {kind}"):
        loaded(kind, pretrained=kind)
    with pytest.raises(Unavailable, match="is not on this machine"):
        loaded(kind, source=str(tmp_path / "nowhere.pth"))
