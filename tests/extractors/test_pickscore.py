"""PickScore against transformers' own CLIP, processor and tokenizer with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sd2eval.checkpoints.text import published_clip_tokenizer
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import Extractor
from sd2eval.extractors.pickscore import FILE
from sd2eval.metrics import METRICS
from tests.extractors.captioned import CAPTIONS, CPU, config, scenes

SIZE = 28
OLD: dict[str, Any] = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "bad_words_ids": None,
    "decoder_start_token_id": None, "do_sample": False, "dropout": 0.0, "finetuning_task": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False, "label2id": {"LABEL_0": 0},
    "max_length": 20, "num_beams": 1, "output_attentions": False, "prefix": None, "pruned_heads": {},
    "return_dict": True, "temperature": 1.0, "tf_legacy_loss": False, "tie_word_embeddings": True,
    "torch_dtype": None, "torchscript": False, "transformers_version": "4.24.0", "use_bfloat16": False,
}  # fmt: skip
"""What transformers 4 wrote into each half of a config."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The published layout, tiny: with the leftovers of old configs, and the counters of old files."""
    torch.manual_seed(0)
    layers = {"hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    tower = {**layers, "num_hidden_layers": 2, "initializer_factor": 4.0}
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **tower,
                "vocab_size": 49408,
                "bos_token_id": 0,
                "eos_token_id": 2,
                "pad_token_id": 1,
            },
            vision_config={**tower, "image_size": SIZE, "patch_size": 14},
            projection_dim=16,
            logit_scale_init_value=3.0,
        )
    )
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for part in ("text", "vision"):
        settings[f"{part}_config_dict"] = tower | {"image_size": SIZE, "patch_size": 14}
        settings[f"{part}_config"] |= OLD
    (tmp_path / "config.json").write_text(json.dumps(settings | {"torch_dtype": "float32"}))
    counters = {
        f"{part}_model.embeddings.position_ids": torch.arange(count)[None]
        for part, count in (("text", 77), ("vision", 5))
    }
    save_file(load_file(tmp_path / FILE) | counters, tmp_path / FILE)
    return tmp_path


def extractor(source: Path, **settings: Any) -> Extractor:
    return load_extractor(config("pickscore", source, **settings), CPU)


def scores(found: Extractor, images: Any, captions: list[str]) -> Any:
    assert found.images
    assert found.texts
    return (found.images(images)["features"] * found.texts(captions)).sum(axis=1)


def transformers_scores(folder: Path, images: Any, captions: list[str]) -> Any:
    """`logits_per_image` of transformers' CLIP, each caption by itself: no padding at all."""
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    tokenizer, found = published_clip_tokenizer(), []
    for image, caption in zip(images, captions, strict=True):
        tokens = tokenizer([caption], truncation=True, max_length=77, return_tensors="pt")
        pixels = processor(images=[Image.fromarray(image)], return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**tokens, **pixels).logits_per_image.item())
    return np.array(found)


def test_the_score_is_transformers_logit(folder: Path) -> None:
    want = transformers_scores(folder, scenes(), CAPTIONS)
    np.testing.assert_allclose(scores(extractor(folder), scenes(), CAPTIONS), want, rtol=1e-4, atol=1e-4)


def test_the_metric_is_the_mean_logit(folder: Path) -> None:
    found = extractor(folder / FILE)
    assert found.images
    assert found.texts
    estimate = METRICS["pickscore"].estimate(found.images(scenes())["features"], found.texts(CAPTIONS))
    want = transformers_scores(folder, scenes(), CAPTIONS)
    assert estimate.value == pytest.approx(want.mean(), rel=1e-4)
    np.testing.assert_allclose(estimate.influence, want - want.mean(), atol=1e-3)


def test_texts_are_as_long_as_the_scale_and_features_one(folder: Path) -> None:
    found = extractor(folder)
    assert found.images
    assert found.texts
    np.testing.assert_allclose(np.linalg.norm(found.texts(CAPTIONS), axis=1), np.exp(3.0), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.images(scenes())["features"], axis=1), 1.0, rtol=1e-5)


def test_batches_and_order_change_nothing_and_captions_do(folder: Path) -> None:
    images, want = scenes(), scores(extractor(folder, batch_size=1), scenes(), CAPTIONS)
    whole = extractor(folder, batch_size=16)
    np.testing.assert_allclose(scores(whole, images, CAPTIONS), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores(whole, images[::-1], CAPTIONS[::-1]), want[::-1], rtol=1e-4, atol=1e-4)
    assert (np.abs(scores(whole, images, CAPTIONS[1:] + CAPTIONS[:1]) - want) > 1e-2).all()


def test_a_caption_is_cut_at_77_tokens(folder: Path) -> None:
    found = extractor(folder)
    assert found.texts
    long, longer = found.texts(["ball " * 80, "ball " * 200])
    np.testing.assert_allclose(long, longer, rtol=1e-5, atol=1e-5)


def test_a_damaged_or_foreign_file_is_refused(folder: Path) -> None:
    file = folder / FILE
    whole, state = file.read_bytes(), load_file(file)
    scale = "visual_projection.weight"
    for wrong, line in (
        ({**state, "other": torch.ones(1)}, "1 tensors find no place (first: other)"),
        ({name: state[name] for name in state if name != scale}, f"1 tensors are missing (first: {scale})"),
        ({**state, scale: torch.ones(3, 3)}, f"{scale} has shape (3, 3), expected (16, 32)"),
        ({**state, scale: torch.full((16, 32), torch.nan)}, f"NaN or infinity in its tensor {scale}"),
    ):
        save_file(wrong, file)
        with pytest.raises(InputError) as error:
            extractor(folder)
        assert line in str(error.value)
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>", b"words"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=FILE):
            extractor(folder)


def test_a_folder_without_its_parts_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json beside it"):
        extractor(folder)
    (folder / FILE).unlink()
    with pytest.raises(InputError, match=f"no {FILE} in "):
        extractor(folder)
    with pytest.raises(InputError, match="preprocess must be null"):
        extractor(folder, preprocess="antialias")
    with pytest.raises(InputError, match="neither `source` nor `pretrained`"):
        load_extractor(config("pickscore", None), CPU)


def test_a_config_that_describes_no_clip_is_refused(folder: Path) -> None:
    for content in ("{", '{"text_config": {"hidden_size": "wide"}}', "[]"):
        (folder / "config.json").write_text(content)
        with pytest.raises(InputError, match="describes no CLIP"):
            extractor(folder)
