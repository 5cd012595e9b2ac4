"""Heads whose files are another one's, damaged, missing or hostile: one line each, never a number."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.weights.published import published
from tests.extractors.captioned import CPU
from tests.extractors.published_heads import LAST, SHAPES, add_towers, config, folder_with, state_of


@pytest.fixture(autouse=True)
def towers_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_towers(tmp_path, monkeypatch)


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
