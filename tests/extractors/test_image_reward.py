"""ImageReward against its definition, written out from the published names of its tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from torch.nn import functional
from torchvision import transforms

from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.extractors.image_reward import FILE, VOCABULARY, tokens_of
from sd2eval.metrics import METRICS
from tests.extractors.captioned import CAPTIONS, CPU, config, scenes

WIDTH, HIDDEN, DEPTH, SIZE, PATCH = 192, 128, 2, 32, 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2028", "a", "red", "ball", "two", "men", ",", "one",
         "of", "them", "in", "hat", "stand", "on", "train", "##s", "cat", "'", "s", "bed", "."]  # fmt: skip
State = dict[str, torch.Tensor]


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of `ImageReward.pt`, smaller."""
    eye, text = "blip.visual_encoder", "blip.text_encoder"
    found = {
        f"{eye}.cls_token": (1, 1, WIDTH),
        f"{eye}.pos_embed": (1, (SIZE // PATCH) ** 2 + 1, WIDTH),
        f"{eye}.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        f"{eye}.patch_embed.proj.bias": (WIDTH,),
        **norm(f"{eye}.norm", WIDTH),
        f"{text}.embeddings.word_embeddings.weight": (len(WORDS) + 2, HIDDEN),
        f"{text}.embeddings.position_embeddings.weight": (40, HIDDEN),
        **norm(f"{text}.embeddings.LayerNorm", HIDDEN),
        **linear("blip.vision_proj", WIDTH, 8),
        **linear("blip.text_proj", HIDDEN, 8),
    }
    for index in range(DEPTH):
        block, layer = f"{eye}.blocks.{index}", f"{text}.encoder.layer.{index}"
        found |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        found |= linear(f"{block}.attn.qkv", WIDTH, 3 * WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        found |= linear(f"{block}.mlp.fc1", WIDTH, 256) | linear(f"{block}.mlp.fc2", 256, WIDTH)
        for part, source in (("attention", HIDDEN), ("crossattention", WIDTH)):
            found |= linear(f"{layer}.{part}.self.query", HIDDEN, HIDDEN)
            found |= linear(f"{layer}.{part}.self.key", source, HIDDEN)
            found |= linear(f"{layer}.{part}.self.value", source, HIDDEN)
            found |= linear(f"{layer}.{part}.output.dense", HIDDEN, HIDDEN)
            found |= norm(f"{layer}.{part}.output.LayerNorm", HIDDEN)
        found |= linear(f"{layer}.intermediate.dense", HIDDEN, 256) | linear(
            f"{layer}.output.dense", 256, HIDDEN
        )
        found |= norm(f"{layer}.output.LayerNorm", HIDDEN)
    widths = (HIDDEN, 24, 12, 8, 4, 1)
    for index, number in enumerate((0, 2, 4, 6, 7)):
        found |= linear(f"mlp.layers.{number}", widths[index], widths[index + 1])
    return found


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights; small ones in the eye, so that the epsilon of its norms is felt."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes().items():
        scale = 0.01 if "visual" in name else 0.3 if "mlp.layers" in name else 0.1
        found[name] = scale * torch.randn(shape, generator=generator)
        if "norm" in name.lower() and name.endswith("weight"):
            found[name] = found[name] + 1
    return found | {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


@pytest.fixture
def folder(state: State, tmp_path: Path) -> Path:
    torch.save(state, tmp_path / FILE)
    (tmp_path / VOCABULARY).write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def extractor(source: Path, **settings: Any) -> Extractor:
    return load_extractor(config("image_reward", source, **settings), CPU)


def rewards(found: Extractor, images: Any, captions: list[str]) -> Any:
    assert found.pairs
    return found.pairs(images, captions)["value"]


class Definition:
    """The network from the papers and its tensors, one image and caption at a time, in float64."""

    def __init__(self, state: State) -> None:
        self.state = {name: tensor.double() for name, tensor in state.items()}

    def linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return values @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name: str, values: torch.Tensor, epsilon: float) -> torch.Tensor:
        mean, spread = values.mean(-1, keepdim=True), values.var(-1, unbiased=False, keepdim=True)
        return (values - mean) / (spread + epsilon).sqrt() * self.state[f"{name}.weight"] + self.state[
            f"{name}.bias"
        ]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention [n, width] in heads of 64."""
        query, key, value = (part.unflatten(-1, (-1, 64)).transpose(0, 1) for part in (query, key, value))
        weights = (query @ key.transpose(1, 2) / 8).softmax(-1)
        return (weights @ value).transpose(0, 1).flatten(1)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        eye = "blip.visual_encoder"
        patches = functional.conv2d(
            pixels.double()[None],
            self.state[f"{eye}.patch_embed.proj.weight"],
            self.state[f"{eye}.patch_embed.proj.bias"],
            stride=PATCH,
        )
        found = torch.cat([self.state[f"{eye}.cls_token"][0], patches[0].flatten(1).T])
        found = found + self.state[f"{eye}.pos_embed"][0]
        for index in range(DEPTH):
            block = f"{eye}.blocks.{index}"
            query, key, value = self.linear(
                f"{block}.attn.qkv", self.norm(f"{block}.norm1", found, 1e-6)
            ).chunk(3, dim=-1)
            found = found + self.linear(f"{block}.attn.proj", self.attend(query, key, value))
            wide = functional.gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", found, 1e-6)))
            found = found + self.linear(f"{block}.mlp.fc2", wide)
        return self.norm(f"{eye}.norm", found, 1e-6)

    def read(self, tokens: list[int], seen: torch.Tensor) -> torch.Tensor:
        text = "blip.text_encoder"
        found = self.state[f"{text}.embeddings.word_embeddings.weight"][tokens]
        found = found + self.state[f"{text}.embeddings.position_embeddings.weight"][: len(tokens)]
        found = self.norm(f"{text}.embeddings.LayerNorm", found, 1e-12)
        for index in range(DEPTH):
            layer = f"{text}.encoder.layer.{index}"
            for part in ("attention", "crossattention"):
                source = seen if part == "crossattention" else found
                query = self.linear(f"{layer}.{part}.self.query", found)
                key, value = (self.linear(f"{layer}.{part}.self.{kind}", source) for kind in ("key", "value"))
                out = self.linear(f"{layer}.{part}.output.dense", self.attend(query, key, value))
                found = self.norm(f"{layer}.{part}.output.LayerNorm", out + found, 1e-12)
            wide = functional.gelu(self.linear(f"{layer}.intermediate.dense", found))
            out = self.linear(f"{layer}.output.dense", wide)
            found = self.norm(f"{layer}.output.LayerNorm", out + found, 1e-12)
        return found

    def reward(self, image: Any, tokens: list[int]) -> float:
        steps = [
            transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
        seen = self.see(transforms.Compose(steps)(Image.fromarray(image)))
        found = self.read(tokens, seen)[0].numpy()
        for number in (0, 2, 4, 6, 7):
            weight, bias = (self.state[f"mlp.layers.{number}.{kind}"].numpy() for kind in ("weight", "bias"))
            found = weight @ found + bias
        return float((found[0] - 0.16717362830052426) / 1.0333394966054072)


def tokens(caption: str) -> list[int]:
    """The tokens of a caption whose words are all in the vocabulary, except for those that are unknown."""
    words = re.findall(r"\w+|[^\w\s]", caption.lower())
    inside = [WORDS.index(word) if word in WORDS else WORDS.index("[UNK]") for word in words]
    return [WORDS.index("[CLS]"), *inside[:33], WORDS.index("[SEP]")]


def test_the_reward_is_that_of_the_definition(state: State, folder: Path) -> None:
    want = [Definition(state).reward(*pair) for pair in zip(scenes(), map(tokens, CAPTIONS), strict=True)]
    assert np.ptp(want) > 0.01
    np.testing.assert_allclose(rewards(extractor(folder), scenes(), CAPTIONS), want, rtol=1e-4, atol=1e-5)


def test_the_metric_is_the_mean_reward(folder: Path) -> None:
    found = rewards(extractor(folder / FILE), scenes(), CAPTIONS)
    assert found.dtype == np.float32
    assert METRICS["image_reward"].estimate(found, None).value == pytest.approx(found.mean(), rel=1e-6)
    assert METRICS["image_reward"].against is None


def test_batches_and_order_change_nothing_and_captions_do(folder: Path) -> None:
    images, want = scenes(), rewards(extractor(folder, batch_size=1), scenes(), CAPTIONS)
    whole = extractor(folder, batch_size=16)
    np.testing.assert_allclose(rewards(whole, images, CAPTIONS), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rewards(whole, images[::-1], CAPTIONS[::-1]), want[::-1], rtol=1e-4, atol=1e-5)
    assert (np.abs(rewards(whole, images, CAPTIONS[1:] + CAPTIONS[:1]) - want) > 1e-3).all()
    assert (np.abs(rewards(whole, images[[1, 2, 0]], CAPTIONS) - want) > 1e-4).all()


def test_a_caption_is_cut_at_35_tokens(state: State, folder: Path) -> None:
    long, longer = rewards(extractor(folder), scenes()[[0, 0]], ["ball " * 33, "ball " * 40 + "cat"])
    assert long == pytest.approx(longer, rel=1e-5)
    assert long == pytest.approx(Definition(state).reward(scenes()[0], tokens("ball " * 33)), rel=1e-4)


def test_a_vocabulary_that_is_not_there_is_asked_for_by_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    (folder / VOCABULARY).unlink()
    with pytest.raises(InputError, match=r"bert_base_uncased_vocabulary: .*vocab\.txt"):
        extractor(folder)


def test_the_tokens_are_berts_and_blips(folder: Path) -> None:
    tokenizer = tokens_of(folder / VOCABULARY, len(WORDS) + 2)
    found = tokenizer("Two BALLS [DEC], caf\u00e9 [ENC]")["input_ids"]
    names = ["[CLS]", "two", "ball", "##s", None, ",", "[UNK]", None, "[SEP]"]
    assert [WORDS[index] if index < len(WORDS) else None for index in found] == names
    assert [index for index in found if index >= len(WORDS)] == [len(WORDS), len(WORDS) + 1]


def test_the_digest_is_that_of_weights_and_vocabulary(folder: Path) -> None:
    before = extractor(folder).digest
    assert extractor(folder, batch_size=7).digest == before
    (folder / VOCABULARY).write_text("\n".join([*WORDS[:-1], "!"]), encoding="utf-8")
    assert extractor(folder).digest != before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"other": torch.ones(1)}, "1 tensors find no place (first: other)"),
        ({"mlp.layers.4.bias": None}, "1 tensors are missing (first: mlp.layers.4.bias)"),
        (
            {"blip.visual_encoder.blocks.1.attn.qkv.bias": torch.ones(3)},
            "attn.qkv.bias has shape (3,), expected (576,)",
        ),
        ({"blip.visual_encoder.pos_embed": None}, "is no ImageReward"),
        ({"mlp.layers.0.weight": torch.ones(3)}, "is no ImageReward"),
    ],
)
def test_another_networks_tensors_are_refused(
    state: State, folder: Path, change: dict[str, torch.Tensor | None], line: str
) -> None:
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    torch.save(changed, folder / FILE)
    with pytest.raises(InputError) as error:
        extractor(folder)
    assert line in str(error.value)


def test_a_damaged_file_is_refused(folder: Path) -> None:
    file = folder / FILE
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>", b"words"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=FILE):
            extractor(folder)
    file.unlink()
    with pytest.raises(InputError, match=f"no {FILE} in "):
        extractor(folder)
    with pytest.raises(InputError, match="preprocess must be null"):
        extractor(folder, preprocess="antialias")


@pytest.mark.parametrize(
    "words", [[*WORDS, "more"], WORDS[:-1], ["[UNUSED]", *WORDS[1:]], [*WORDS[:-1], "a"]]
)
def test_another_vocabulary_is_refused(folder: Path, words: list[str]) -> None:
    (folder / VOCABULARY).write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(InputError, match="is not the vocabulary of this network"):
        extractor(folder)
