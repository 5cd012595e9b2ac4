"""Heads on CLIP embeddings: real architectures in the published layouts, on tiny towers of their width."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
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
from tests.extractors.tiny_clips import OPENAI, architecture, publish, random_clip

State = dict[str, Tensor]
L14, H14 = "timm/vit_large_patch14_clip_224.openai/", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K/"


def _layers(places: tuple[int, ...], widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for place, before, after in zip(places, widths, widths[1:], strict=False):
        shapes |= {f"layers.{place}.weight": (after, before), f"layers.{place}.bias": (after,)}
    return shapes


# Names and shapes in the published files, from their authors' own classes.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "aesthetic_v1": {"weight": (1, 768), "bias": (1,)},
    "aesthetic_v2": _layers((0, 2, 4, 6, 7), (768, 1024, 128, 64, 16, 1)),
    "nsfw_l_14": {"norm.mean": (768,), "norm.variance": (768,)}
    | {"linear_1.weight": (64, 768), "linear_1.bias": (64,)}
    | {"linear_2.weight": (512, 64), "linear_2.bias": (512,)}
    | {"linear_3.weight": (256, 512), "linear_3.bias": (256,)}
    | {"linear_4.weight": (1, 256), "linear_4.bias": (1,)},
    "nsfw_h_14": _layers((0, 3, 6, 9, 12, 15, 16), (1024, 1024, 2048, 1024, 256, 128, 16, 1)),
}
LAST = {
    "aesthetic_v1": "bias",
    "aesthetic_v2": "layers.7.bias",
    "nsfw_l_14": "linear_4.bias",
    "nsfw_h_14": "layers.16.bias",
}


def state_of(name: str, spread: float = 1.0) -> State:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in SHAPES[name].items():
        values = torch.randn(shape, generator=generator) * spread
        state[key] = values / shape[-1] ** 0.5 if len(shape) == 2 else values
    if "norm.variance" in state:
        state["norm.variance"] = state["norm.variance"].square() + 0.5
    return state


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


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny towers of the two embeddings' widths, known as the published ones are."""
    architecture(tmp_path, "tiny-768", 768)
    architecture(tmp_path, "tiny-1024", 1024)
    publish(monkeypatch, "tiny-768", openai=OPENAI | {"quick_gelu": True, "hf_hub": L14})
    publish(monkeypatch, "tiny-1024", laion2b_s32b_b79k=OPENAI | {"hf_hub": H14})


def config(name: str, source: Path | None, **more: object) -> ExtractorConfig:
    wide = name == "nsfw_h_14"
    settings = {"model": "tiny-1024" if wide else "tiny-768", "preprocess": None, "batch_size": 2}
    return ExtractorConfig(
        name=name,
        kind="clip_head",
        pretrained="laion2b_s32b_b79k" if wide else "openai",
        source=None if source is None else str(source),
        dtype="float32",
        **(settings | more),
    )


def tower_of(name: str) -> str:
    return "open_clip_vit_h_14" if name == "nsfw_h_14" else "open_clip_vit_l_14"


def folder_with(folder: Path, name: str, state: State) -> Path:
    """Both files under their published names."""
    folder.mkdir()
    torch.save(state, folder / published()[name].file)
    clip = random_clip("tiny-1024" if name == "nsfw_h_14" else "tiny-768").state_dict()
    file = folder / published()[tower_of(name)].file
    save_file(clip, file) if file.suffix == ".safetensors" else torch.save(clip, file)
    return folder


def values(settings: ExtractorConfig, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    extractor = load_extractor(settings, CPU)
    assert extractor.images is not None
    got = extractor.images(images)
    assert got.keys() == {"value"}
    return got["value"]


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


@pytest.mark.parametrize("name", SHAPES)
def test_the_head_of_another_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "both", name, state_of(name))
    for other in SHAPES.keys() - {name}:
        torch.save(state_of(other), folder / published()[name].file)
        with pytest.raises(InputError, match="holds the weights of another network"):
            load_extractor(config(name, folder), CPU)


@pytest.mark.parametrize("name", SHAPES)
def test_one_tensor_too_many_too_few_or_of_another_shape_is_refused(name: str, tmp_path: Path) -> None:
    folder, state = folder_with(tmp_path / "both", name, state_of(name)), state_of(name)
    less = {key: tensor for key, tensor in state.items() if key != LAST[name]}
    wrong = {
        r"1 tensors are missing \(first: " + re.escape(LAST[name]): less,
        r"1 tensors find no place \(first: more": state | {"more": torch.zeros(1)},
        re.escape(LAST[name]) + r" has shape \[2\], expected \[1\]": state | {LAST[name]: torch.zeros(2)},
        "NaN or infinity in its tensor " + re.escape(LAST[name]): state
        | {LAST[name]: torch.tensor([np.nan])},
    }
    for line, content in wrong.items():
        torch.save(content, folder / published()[name].file)
        with pytest.raises(InputError, match=line):
            load_extractor(config(name, folder), CPU)


@pytest.mark.parametrize("which", ["head", "tower"])
def test_a_truncated_file_is_one_line_that_names_it(which: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "both", "aesthetic_v2", state_of("aesthetic_v2"))
    file = folder / published()["aesthetic_v2" if which == "head" else "open_clip_vit_l_14"].file
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=re.escape(f"{file}: cannot be read as weights")) as caught:
        load_extractor(config("aesthetic_v2", folder), CPU)
    assert "\n" not in str(caught.value)


def test_a_head_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    folder = folder_with(tmp_path / "both", "aesthetic_v1", state_of("aesthetic_v1"))
    torch.save({"weight": Canary()}, folder / published()["aesthetic_v1"].file)
    with pytest.raises(InputError, match="holds code besides tensors"):
        load_extractor(config("aesthetic_v1", folder), CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("which", ["aesthetic_v2", "open_clip_vit_l_14"])
def test_a_folder_that_lacks_one_of_the_two_says_which_and_names_both(which: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "both", "aesthetic_v2", state_of("aesthetic_v2"))
    (folder / published()[which].file).unlink()
    with pytest.raises(InputError, match=re.escape(f"no {published()[which].file} in")) as caught:
        load_extractor(config("aesthetic_v2", folder), CPU)
    assert "sac+logos+ava1-l14-linearMSE.pth (the head)" in str(caught.value)
    assert "open_clip_model.safetensors (its CLIP, that of open_clip_vit_l_14)" in str(caught.value)


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


def test_what_fits_no_head_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "both", "aesthetic_v1", state_of("aesthetic_v1"))
    wide = {"model": "tiny-1024", "pretrained": "laion2b_s32b_b79k"}
    narrow = config("aesthetic_v1", folder)
    for name, value in wide.items():
        setattr(narrow, name, value)
    with pytest.raises(InputError, match="takes embeddings of 768 numbers, tiny-1024 gives 1024"):
        load_extractor(narrow, CPU)
    unknown = config("aesthetic_v1", folder)
    unknown.name = "aesthetic_v3"
    with pytest.raises(InputError, match=r"'aesthetic_v3': no such clip_head extractor; did you mean"):
        load_extractor(unknown, CPU)
    with pytest.raises(InputError, match=r"preprocess must be null"):
        load_extractor(config("aesthetic_v1", folder, preprocess="crop"), CPU)


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
