from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

import sd2eval
from sd2eval.checkpoints.networks import load_text_model
from sd2eval.checkpoints.text import (
    TextEncoder,
    from_open_clip,
    published_clip_tokenizer,
    text_encoder,
)

TEXT = {"context_length": 16, "vocab_size": 812, "width": 64, "heads": 4, "layers": 3}
VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
TOKENIZER = Path(sd2eval.__path__[0], "mini", "weights", "tokenizer")


def tower() -> torch.nn.Module:
    torch.manual_seed(0)
    model = open_clip.model.CLIP(32, VISION, TEXT).eval()
    torch.nn.init.normal_(model.ln_final.weight)
    torch.nn.init.normal_(model.ln_final.bias)
    return model


def penultimate(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """What FrozenOpenCLIPEmbedder computes for "penultimate": all blocks but the last, then ln_final."""
    x = model.token_embedding(ids) + model.positional_embedding
    for block in model.transformer.resblocks[:-1]:
        x = block(x, attn_mask=model.attn_mask)
    return model.ln_final(x)


def test_the_converted_tower_computes_the_penultimate_layer_of_open_clip() -> None:
    model = tower()
    ids = torch.randint(0, 812, (5, 16), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        want = penultimate(model, ids)
        got = from_open_clip(model.state_dict(), TEXT).eval()(input_ids=ids)[0]
    assert torch.equal(got, want)


@pytest.mark.parametrize("layout", ["open_clip", "transformers"])
def test_both_layouts_load_and_encode_alike(tmp_path: Path, layout: str) -> None:
    model = from_open_clip(tower().state_dict(), TEXT)
    if layout == "open_clip":
        state = {
            key: value.contiguous()
            for key, value in tower().state_dict().items()
            if not key.startswith("visual")
        }
        save_file(state, tmp_path / "open_clip_model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(TEXT))
    else:
        model.save_pretrained(tmp_path)
    encoder = text_encoder(load_text_model(tmp_path, torch.float32), TOKENIZER, "open_clip")
    texts = ["a red ball", "two blue cubes"]
    ids = SimpleTokenizer(str(next(TOKENIZER.glob("bpe_*"))), context_length=16)(texts)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(texts)[0], model.eval()(input_ids=ids)[0])


def encoder_with(folder: Path, context: int) -> TextEncoder:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=context, bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder)
    return text_encoder(load_text_model(folder, torch.float32), None, "open_clip")


def test_ids_are_those_of_open_clip_padded_with_zero(tmp_path: Path) -> None:
    encoder = encoder_with(tmp_path, 77)
    texts = ["Stop!", "fish &amp; chips", "a man’s dog"]
    ids, truncated = encoder.tokenize(texts)
    assert torch.equal(ids, open_clip.tokenize(texts))
    assert ids[0].tolist()[:4] == [49406, 1691, 256, 49407]  # "!" is a word, not padding
    assert set(ids[0, 4:].tolist()) == {0}
    assert truncated == [False, False, False]


@pytest.mark.parametrize(("words", "cut"), [(75, False), (76, True), (90, True)])
def test_a_caption_is_flagged_exactly_when_it_exceeds_77_tokens(
    tmp_path: Path, words: int, cut: bool
) -> None:
    ids, truncated = encoder_with(tmp_path, 77).tokenize([" ".join(["dog"] * words)])
    assert truncated == [cut]
    assert ids.shape == (1, 77)
    assert ids[0, -1] == 49407


def test_encoding_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    encoder = encoder_with(tmp_path, 77)
    texts = [f"caption number {i}" for i in range(7)]
    whole, _ = encoder(texts, batch_size=7)
    parts, _ = encoder(texts, batch_size=2)
    torch.testing.assert_close(parts, whole)


def test_the_v1_tokenizer_needs_no_download_and_pads_with_the_end() -> None:
    tokenizer = published_clip_tokenizer()
    texts = ["a man's dog at 12 o'clock!", "two cafés"]
    ids = tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    theirs = open_clip.tokenize(texts)
    assert torch.equal(torch.where(theirs == 0, 49407, theirs), ids)  # the same words; open_clip pads with 0
    assert ids[0, -1] == 49407
