"""Heads on CLIP embeddings: real architectures in the published layouts, on tiny towers of their width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear

from sd2eval.config import ExtractorConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors import clip_head, load_extractor
from sd2eval.extractors import open_clip as towers
from sd2eval.metrics import METRICS
from sd2eval.plugins import extractor_kinds
from sd2eval.weights.published import published
from tests.extractors.captioned import CPU, scenes
from tests.extractors.published_heads import (
    LAST,
    SHAPES,
    State,
    add_towers,
    config,
    folder_with,
    state_of,
    tower_of,
    values,
)
from tests.extractors.tiny_clips import random_clip


@pytest.fixture(autouse=True)
def towers_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_towers(tmp_path, monkeypatch)


def by_hand(name: str, state: State, x: Tensor) -> Tensor:
    """What the authors' classes compute without dropout, written out."""
    if name == "aesthetic_v1":
        return linear(x, state["weight"], state["bias"])[:, 0]
    if name == "nsfw_l_14":
        x = (x - state["norm.mean"]) / state["norm.variance"].sqrt()
        for layer in (1, 2, 3):
            x = linear(x, state[f"linear_{layer}.weight"], state[f"linear_{layer}.bias"]).clamp(min=0)
        return 1 / (1 + torch.exp(-linear(x, state["linear_4.weight"], state["linear_4.bias"])[:, 0]))
    places = sorted({int(key.split(".")[1]) for key in state})
    for place in places:
        x = linear(x, state[f"layers.{place}.weight"], state[f"layers.{place}.bias"])
        if name == "nsfw_h_14" and place < 15:
            x = x.clamp(min=0)
    return x[:, 0]


@pytest.mark.parametrize("name", SHAPES)
def test_a_head_in_its_published_layout_gives_what_its_layers_say(name: str, tmp_path: Path) -> None:
    images, state = scenes(3, 48), state_of(name)
    settings = config(name, folder_with(tmp_path / "both", name, state))
    clip_file = tmp_path / "both" / published()[tower_of(name)].file
    tower = load_extractor(
        ExtractorConfig(
            name="tower",
            kind="open_clip",
            model=settings.model,
            pretrained=settings.pretrained,
            source=str(clip_file),
            preprocess=None,
            dtype="float32",
            batch_size=3,
        ),
        CPU,
    )
    assert tower.images is not None
    embeddings = torch.from_numpy(tower.images(images)["features"])
    got = values(settings, images)
    assert got.dtype == np.float32
    assert got.shape == (3,)
    np.testing.assert_allclose(got, by_hand(name, state, embeddings), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aesthetic_v1", lambda bias: bias),
        ("aesthetic_v2", lambda bias: bias),
        ("nsfw_h_14", lambda bias: bias),
        ("nsfw_l_14", lambda bias: 1 / (1 + np.exp(-bias))),
    ],
)
def test_a_head_of_zeros_gives_its_last_bias(
    name: str, expected: Callable[[float], float], tmp_path: Path
) -> None:
    state = {key: torch.zeros(shape) for key, shape in SHAPES[name].items()}
    state |= {"norm.variance": torch.ones(768)} if name == "nsfw_l_14" else {}
    state[LAST[name]] += 1.25
    got = values(config(name, folder_with(tmp_path / "both", name, state)), scenes(2))
    np.testing.assert_allclose(got, expected(1.25), rtol=1e-6)


def test_the_embedding_has_unit_length_before_the_head(tmp_path: Path) -> None:
    """A linear head whose weight is the embedding itself gives its squared length."""
    images = scenes(1, 32)
    folder = folder_with(tmp_path / "both", "aesthetic_v1", state_of("aesthetic_v1"))
    clip = random_clip("tiny-768").eval()
    for block in (*clip.visual.transformer.resblocks, *clip.transformer.resblocks):
        block.mlp.gelu = towers.open_clip.transformer.QuickGELU()
    with torch.device("meta"):
        _, prepare = towers.architecture(config("aesthetic_v1", None))
    with torch.inference_mode():
        plain = clip.encode_image(prepare(images))
    assert not 0.9 < float(plain.norm()) < 1.1
    state = {"weight": plain / plain.norm(), "bias": torch.zeros(1)}
    torch.save(state, folder / published()["aesthetic_v1"].file)
    np.testing.assert_allclose(values(config("aesthetic_v1", folder), images), 1, rtol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_values_do_not_depend_on_batch_or_order(name: str, tmp_path: Path) -> None:
    folder, images = folder_with(tmp_path / "both", name, state_of(name)), scenes(5, 40)
    whole = values(config(name, folder, batch_size=5), images)
    assert np.ptp(whole) > 1e-4
    np.testing.assert_allclose(values(config(name, folder), images[::-1])[::-1], whole, atol=1e-5)


def test_the_digest_names_both_the_tower_and_the_head(tmp_path: Path) -> None:
    state = state_of("aesthetic_v1")
    folder = folder_with(tmp_path / "both", "aesthetic_v1", state)
    settings = config("aesthetic_v1", folder)
    before = load_extractor(settings, CPU).digest
    torch.save(state | {"bias": state["bias"] + 1}, folder / published()["aesthetic_v1"].file)
    other_head = load_extractor(settings, CPU).digest
    clip = random_clip("tiny-768", seed=1).state_dict()
    save_file(clip, folder / published()["open_clip_vit_l_14"].file)
    assert len({before, other_head, load_extractor(settings, CPU).digest}) == 3


def test_a_source_that_is_a_file_is_the_head_and_null_takes_both_from_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path / "both", "nsfw_l_14", state_of("nsfw_l_14"))
    asked: list[str] = []

    def obtain(name: str) -> Path:
        asked.append(name)
        return folder / published()[name].file

    monkeypatch.setattr(clip_head, "obtain", obtain)
    want = load_extractor(config("nsfw_l_14", folder), CPU).digest
    assert asked == []
    head = (folder / published()["nsfw_l_14"].file).rename(tmp_path / "head.pth")
    assert load_extractor(config("nsfw_l_14", head), CPU).digest == want
    assert asked == ["open_clip_vit_l_14"]
    head.rename(folder / published()["nsfw_l_14"].file)
    assert load_extractor(config("nsfw_l_14", None), CPU).digest == want
    assert asked == ["open_clip_vit_l_14", "nsfw_l_14", "open_clip_vit_l_14"]


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("aesthetic", "aesthetic_v2"),
        ("aesthetic_v1", "aesthetic_v1"),
        ("p_unsafe", "nsfw_l_14"),
        ("unsafe_share", "nsfw_l_14"),
        ("unsafe_h_14", "nsfw_h_14"),
    ],
)
def test_a_metric_s_head_composes_and_its_weights_are_in_the_table(metric: str, name: str) -> None:
    chosen, _ = from_overrides(f"protocol.metrics=[{metric}]")
    settings = chosen.protocol.extractor(name)
    assert METRICS[metric].extractor == name
    assert METRICS[metric].array == f"{name}.value"
    assert settings.kind in extractor_kinds()
    assert settings.kind in METRICS[metric].needs
    assert name in clip_head.HEADS
    assert published()[name].url
    assert towers.published_name(settings) == tower_of(name)
    with torch.device("meta"):
        clip, _ = towers.architecture(settings)
    assert clip.visual.output_dim == clip_head.HEADS[name][0]


def test_shares_and_means_are_what_they_say() -> None:
    values = np.array([0.0, 0.05, 0.1, 0.2, 1.0])
    assert METRICS["p_unsafe"].estimate(values, None).value == pytest.approx(0.27)
    share = METRICS["unsafe_share"].estimate(values, None)
    assert share.value == pytest.approx(0.4)  # 0.1 itself was kept
    assert share.influence.sum() == pytest.approx(0)
    assert METRICS["aesthetic"].estimate(values + 5, None).value == pytest.approx(5.27)
    assert [METRICS[name].direction for name in ("aesthetic", "p_unsafe", "unsafe_share")] == [
        "higher",
        "lower",
        "lower",
    ]
    with pytest.raises(InputError, match="NaN or infinity in 1 of 5"):
        METRICS["unsafe_share"].estimate(np.where(values > 0.5, np.nan, values), None)
