"""Autoencoder: known losses are found, masks take the pictures' way, and the floor lies under the sweep."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sd2eval.config import from_overrides
from sd2eval.errors import InputError
from sd2eval.images import for_protocol, square
from sd2eval.probes.base import Unavailable
from sd2eval.probes.declared.autoencoder import PROBE, paired_frechet, there_and_back
from sd2eval.probes.regions import Instances, as_shown, parts_of
from tests.probes.benches import bench_of

PROTOCOL = from_overrides("checkpoint=512-base")[0].protocol


def stand_in(shift: float) -> Any:
    """A checkpoint whose autoencoder adds a number to every pixel, in the unit of -1..1."""
    latent = SimpleNamespace(mode=lambda: None)

    class Vae:
        device, dtype = torch.device("cpu"), torch.float32
        config = SimpleNamespace(scaling_factor=0.5)

        def encode(self, signed: torch.Tensor) -> Any:
            latent.mode = lambda: signed
            return SimpleNamespace(latent_dist=latent)

    vae = Vae()
    definition = SimpleNamespace(resolution=64, name="stand-in")
    decode = lambda latents: latents / vae.config.scaling_factor + shift  # noqa: E731
    return SimpleNamespace(vae=vae, definition=definition, decode=decode)


def test_a_perfect_autoencoder_changes_no_pixel() -> None:
    squares = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(there_and_back(stand_in(0.0), squares), squares)


def test_a_known_shift_comes_out() -> None:
    squares = np.full((3, 64, 64, 3), 100, np.uint8)
    assert (there_and_back(stand_in(20 / 127.5), squares) == 120).all()


def test_nan_is_refused_and_not_black() -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        there_and_back(stand_in(float("nan")), np.zeros((1, 64, 64, 3), np.uint8))


def test_the_floor_of_what_is_unchanged_is_zero() -> None:
    features = np.random.default_rng(1).normal(size=(80, 6)).astype(np.float32)
    found = paired_frechet(features, features)
    assert (found.value, found.stderr) == pytest.approx((0, 0), abs=1e-6)


def test_the_floors_interval_holds_a_known_distance() -> None:
    """Reconstructions are originals moved by a known vector, and noise: |shift|^2 + what the noise adds."""
    rng, shift = np.random.default_rng(2), np.array([0.5, 0, 0, 0])
    truth = 0.25 + 4 * (np.sqrt(1 + 0.04) - 1) ** 2
    holds, values = 0, []
    for _ in range(150):
        originals = rng.normal(size=(200, 4))
        features = originals + shift + 0.2 * rng.normal(size=originals.shape)
        found = paired_frechet(features.astype(np.float32), originals.astype(np.float32))
        values.append(found.value)
        holds += abs(found.value - truth) <= 2.02 * found.stderr
    assert np.mean(values) == pytest.approx(truth, rel=0.02)
    assert 0.89 <= holds / 150 <= 0.99


def test_a_mask_takes_the_pictures_own_way() -> None:
    image = np.zeros((90, 140, 3), np.uint8)
    image[20:60, 50:100] = 255
    shown = for_protocol(square(image, 96), PROTOCOL)[..., 0] >= 128
    mask = as_shown(image[..., 0] > 0, 96, PROTOCOL)
    assert mask.shape == (64, 64)
    assert (mask == shown).mean() > 0.99


def instances(folder: Path) -> Path:
    box = [[10, 10, 40, 10, 40, 30, 10, 30]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}],
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 2, "name": "clock", "supercategory": "indoor"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "area": 600, "iscrowd": 0, "segmentation": box},
            {
                "id": 2,
                "image_id": 1,
                "category_id": 2,
                "area": 90,
                "iscrowd": 0,
                "segmentation": [[60, 40, 70, 40, 70, 49, 60, 49]],
            },
            {
                "id": 3,
                "image_id": 1,
                "category_id": 1,
                "area": 5,
                "iscrowd": 1,
                "segmentation": {"size": [60, 80], "counts": [0, 4800]},
            },
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_parts_are_unions_of_instances_without_crowds(tmp_path: Path) -> None:
    found = parts_of(Instances(instances(tmp_path)), "a.png", {"person": ["person"], "none": ["clock"]}, 100)
    assert found.keys() == {"person", "none", "small"}
    assert found["person"].sum() == pytest.approx(600, abs=60)
    np.testing.assert_array_equal(found["small"], found["none"])
    assert not (found["person"] & found["small"]).any()


def test_a_supercategory_names_its_categories(tmp_path: Path) -> None:
    assert Instances(instances(tmp_path)).categories(["indoor", "person"]) == [2, 1]


def test_what_the_instances_do_not_know_is_named(tmp_path: Path) -> None:
    file = Instances(instances(tmp_path))
    with pytest.raises(InputError, match=r"no category 'dragon' \(person, clock\)"):
        file.categories(["dragon"])
    with pytest.raises(InputError, match=r"knows nothing of the image b.png"):
        file.annotations("b.png", [1])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="no COCO instances"):
        Instances(tmp_path / "broken.json")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    overrides = ("checkpoints=[512-base,x4-upscaling]", "settings.autoencoder.n=40")
    bench, definitions = bench_of("autoencoder", tmp_path_factory.mktemp("drawn"), *overrides)
    return {definition.name: PROBE.measure(bench, definition) for definition in definitions}


def test_the_mini_autoencoders_lose_what_their_training_says(answers: dict[str, Any]) -> None:
    """docs/mini.md: 37.7 dB and 35.9 dB on other held-out scenes."""
    for name, decibel in (("512-base", 37.7), ("x4-upscaling", 35.9)):
        row = next(row for row in answers[name].rows if (row.part, row.metric) == ("", "psnr"))
        assert abs(row.value - decibel) < 1.5
        assert row.low < row.value < row.high


def test_more_is_lost_in_objects_than_in_the_whole(answers: dict[str, Any]) -> None:
    rows = {(row.part, row.metric): row for row in answers["512-base"].rows}
    for part in ("cube", "ball", "cone", "ring", "small"):
        assert rows[part, "psnr"].high < rows["", "psnr"].low
        assert 0 < rows[part, "psnr"].n < 40


def test_the_floor_is_far_below_what_a_sweep_measures(answers: dict[str, Any]) -> None:
    row = next(row for row in answers["512-base"].rows if row.metric == "rfd_mini")
    assert row.value == row.low == 0 or row.low <= row.value <= row.high
    assert row.high < 0.02  # docs/mini.md: the lowest distance of a sweep is 0.12
    assert "floor" in row.note
    assert any("floor" in sentence for sentence in answers["512-base"].sentences)


def test_originals_and_what_came_back_stand_side_by_side(answers: dict[str, Any]) -> None:
    tiles = answers["512-base"].tiles
    assert len(tiles) == 12
    assert [tile.found.partition(",")[0] for tile in tiles[:2]] == ["original", "there and back"]
    apart = np.abs(tiles[0].image.astype(int) - tiles[1].image).mean()
    assert 0 < apart < 5


@pytest.mark.parametrize(
    ("role", "network", "metric"),
    [("distance", "mini_clip", "fd_mini"), ("perceptual", "lpips_alex", "lpips_mini")],
)
def test_a_name_is_not_lent_to_another_network(role: str, network: str, metric: str, tmp_path: Path) -> None:
    bench, (definition,) = bench_of(
        "autoencoder", tmp_path, "checkpoints=[512-base]", f"extractor@protocol.{role}={network}"
    )
    with pytest.raises(
        Unavailable, match=rf"^{metric}: needs a network of kind .*protocol.{role} is {network}$"
    ):
        PROBE.measure(bench, definition)


def photographs(root: Path) -> None:
    """A data set in COCO's layout of six smooth photographs of odd sizes, one of them grey."""
    (root / "val2017").mkdir(parents=True)
    rng, images = np.random.default_rng(5), []
    for key, (width, height) in enumerate(
        [(120, 90), (90, 120), (100, 100), (140, 80), (77, 131), (96, 96)], 1
    ):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
        (small.convert("L") if key == 3 else small).save(root / "val2017" / f"{key}.jpg")
        images.append({"id": key, "file_name": f"{key}.jpg", "width": width, "height": height})
    captions = [{"id": 10 + key, "image_id": key, "caption": "x"} for key in range(1, 7)]
    square_of = {key: [[20, 20, 60, 20, 60, 60, 20, 60]] for key in range(1, 7)}
    annotations = [
        {
            "id": key,
            "image_id": key,
            "category_id": 1,
            "area": 1600,
            "iscrowd": 0,
            "segmentation": square_of[key],
        }
        for key in (1, 2, 4)
    ]
    categories = [{"id": 1, "name": "person", "supercategory": "person"}]
    (root / "captions_x.json").write_text(json.dumps({"images": images, "annotations": captions}))
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances_x.json").write_text(json.dumps(content))


def test_photographs_of_any_shape_go_through_with_their_masks(tmp_path: Path) -> None:
    photographs(tmp_path / "coco")
    bench, (definition,) = bench_of(
        "autoencoder",
        tmp_path / "drawn",
        *(
            "checkpoints=[768-v]",
            "data=coco",
            f"data.root={tmp_path / 'coco'}",
            "data.captions=captions_x.json",
        ),
        "+settings.autoencoder.parts={person: [person]}",
        *(f"~settings.autoencoder.parts.{part}" for part in ("cube", "ball", "cone", "ring")),
    )
    rows = {(row.part, row.metric): row for row in PROBE.measure(bench, definition).rows}
    assert rows["", "psnr"].n == 6
    assert rows["person", "psnr"].n == 3
    assert 5 < rows["person", "psnr"].value < 40
