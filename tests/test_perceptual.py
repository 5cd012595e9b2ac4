"""LPIPS against torchmetrics' with the same weights, and its mini twin."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from torchmetrics.functional.image.lpips import _LPIPS

from sd2eval.config import ExtractorConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.weights import models
from sd2eval.weights.published import published
from tests.loopback import serving

CPU = torch.device("cpu")
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet with random weights under its published names, its classifier (which is not used) left out."""
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features
    for layer in features:
        if isinstance(layer, torch.nn.Conv2d):  # features of order one, as trained ones have
            torch.nn.init.kaiming_normal_(layer.weight)
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    file = tmp_path_factory.mktemp("alexnet") / "weights.pth"
    torch.save(state | {"classifier.1.weight": torch.zeros(1)}, file)
    return file


def config(
    source: Path | str | None, kind: str = "lpips_alex", pretrained: str | None = None
) -> ExtractorConfig:
    return ExtractorConfig(
        name="mine", kind=kind, model=None, pretrained=pretrained, source=source and str(source), batch_size=2
    )


@pytest.fixture(scope="module")
def alex(backbone: Path) -> Extractor:
    return load_extractor(config(backbone), CPU)


@pytest.fixture(scope="module")
def mini() -> Extractor:
    return load_extractor(from_overrides()[0].protocol.perceptual, CPU)


@pytest.fixture(params=["alex", "mini"])
def network(request: pytest.FixtureRequest) -> Extractor:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def pair() -> tuple[Images, Images]:
    images, originals = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    images[1] = originals[1] // 2
    return images, originals


def reference(backbone: Path) -> _LPIPS:
    """Torchmetrics' network with its own linear heads and the file's backbone."""
    model = _LPIPS(pretrained=True, net="alex", pnet_rand=True, use_dropout=True, eval_mode=True)
    state = torch.load(backbone, weights_only=True)
    for part in (model.net.slice1, model.net.slice2, model.net.slice3, model.net.slice4, model.net.slice5):
        part.load_state_dict({name: state[f"features.{name}"] for name in part.state_dict()})
    return model


def signed(images: Images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_lpips_is_that_of_torchmetrics(alex: Extractor, backbone: Path, pair: tuple[Images, Images]) -> None:
    with torch.inference_mode():
        want = reference(backbone)(*map(signed, pair)).flatten().numpy()
    found = alex.distances(*pair)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert found.dtype == np.float32


def test_an_image_is_at_no_distance_from_itself(network: Extractor, pair: tuple[Images, Images]) -> None:
    assert network.distances(pair[0], pair[0]).tolist() == [0, 0, 0]
    assert (network.distances(*pair) > 0).all()
    np.testing.assert_allclose(network.distances(*pair), network.distances(*pair[::-1]), rtol=1e-5)


def test_a_mask_of_everything_gives_the_unmasked_distance(
    network: Extractor, pair: tuple[Images, Images]
) -> None:
    everything = np.ones((3, 64, 64), dtype=np.bool_)
    np.testing.assert_allclose(network.distances(*pair, everything), network.distances(*pair), rtol=1e-5)


def test_a_mask_weighs_the_layers_at_its_place(network: Extractor, pair: tuple[Images, Images]) -> None:
    """What differs at the left is seen by a mask there, and hardly by one at the right."""
    images, originals = pair
    half = originals.copy()
    half[:, :, :24] = images[:, :, :24]
    left = np.zeros((3, 64, 64), dtype=np.bool_)
    left[:, :, :24] = True
    right = np.roll(left, 40, axis=2)
    whole = network.distances(half, originals)
    assert (network.distances(half, originals, left) > whole).all()
    assert (network.distances(half, originals, right) < whole).all()


def test_images_do_not_meet_in_a_batch(network: Extractor, pair: tuple[Images, Images]) -> None:
    alone = [network.distances(a[None], b[None])[0] for a, b in zip(*pair, strict=True)]
    np.testing.assert_allclose(network.distances(*pair), alone, rtol=1e-5)


def test_the_mini_network_is_the_formula_on_the_classifiers_stages(
    mini: Extractor, pair: tuple[Images, Images]
) -> None:
    from sd2eval.mini.classifier import load_classifier

    model, seen = load_classifier(), []
    kinds = [type(module).__name__ for module in model.stages]
    assert kinds == ["Conv2d", "GroupNorm", "SiLU"] * 8
    for index in (5, 11, 17, 23):
        model.stages[index].register_forward_hook(lambda module, given, out: seen.append(out.double()))
    with torch.inference_mode():
        model(signed(np.concatenate(pair)))
    want = torch.zeros(3, dtype=torch.float64)
    for features in seen:
        unit = torch.nn.functional.normalize(features, dim=1)
        want += (2 - 2 * (unit[:3] * unit[3:]).sum(1)).mean((1, 2)) / 4  # |a - b|^2 = 2 - 2 a.b
    np.testing.assert_allclose(mini.distances(*pair), want.numpy(), rtol=1e-4)
    assert mini.name == "mini_lpips"


def test_the_digest_names_the_weights(
    alex: Extractor, mini: Extractor, backbone: Path, tmp_path: Path
) -> None:
    assert load_extractor(config(backbone), CPU).digest == alex.digest != mini.digest
    state = torch.load(backbone, weights_only=True)
    state["features.10.bias"][0] += 1e-6
    torch.save(state, tmp_path / "other.pth")
    assert load_extractor(config(tmp_path / "other.pth"), CPU).digest != alex.digest


def test_weights_are_fetched_by_their_name_in_the_table_and_checked(
    alex: Extractor, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # loopback is no network
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    content = backbone.read_bytes()
    entry = published()["lpips_alex"]
    with serving() as server:
        server.add("alexnet.pth", content)
        for digest in (hashlib.sha256(content).hexdigest(), 64 * "0"):
            table = tmp_path / f"{digest[:8]}.csv"
            columns = dataclasses.asdict(entry) | {"sha256": digest, "url": server.url("alexnet.pth")}
            columns["companions"] = ""
            with table.open("w") as file:
                writer = csv.DictWriter(file, list(columns))
                writer.writeheader()
                writer.writerow(columns)
            obtain = functools.partial(models.obtain, table=table)
            monkeypatch.setattr("sd2eval.extractors._published.models.obtain", obtain)
            if digest == 64 * "0":
                with pytest.raises(InputError, match=r"lpips_alex.*source="):
                    load_extractor(config(None, pretrained="lpips_alex"), CPU)
            else:
                assert load_extractor(config(None, pretrained="lpips_alex"), CPU).digest == alex.digest


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "lpips"}, "extractor kind 'lpips' is unknown; allowed: .*lpips_alex, .*mini_lpips"),
        ({"source": "/no/such/file"}, "is not on this machine"),
        ({}, "neither `source` nor `pretrained` says which weights"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_line(settings: dict[str, str], line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        load_extractor(config(settings.pop("source", None), **settings), CPU)
    assert "\n" not in str(caught.value)


def test_another_file_than_the_published_is_refused(backbone: Path) -> None:
    with pytest.raises(InputError, match=r"is not lpips_alex \(has sha256"):
        load_extractor(config(backbone, pretrained="lpips_alex"), CPU)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    with pytest.raises(InputError, match="cannot load its weights") as caught:
        load_extractor(config(tmp_path / "vgg.pth"), CPU)
    assert "\n" not in str(caught.value)


class _Canary:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_weights_with_code_in_them_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": _Canary(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="cannot load its weights"):
        load_extractor(config(tmp_path / "evil.pth"), CPU)
    assert not (tmp_path / "ran").exists()


def test_the_published_network_is_the_protocols() -> None:
    protocol = from_overrides("protocol=model_card", "checkpoint=512-base-ema")[0].protocol
    assert (protocol.perceptual.kind, protocol.perceptual.pretrained) == (
        "lpips_alex",
        "lpips_alex",
    )


def test_the_mini_networks_weights_are_the_distance_extractors(mini: Extractor) -> None:
    distance = load_extractor(from_overrides()[0].protocol.distance, CPU)
    assert mini.digest == distance.digest
