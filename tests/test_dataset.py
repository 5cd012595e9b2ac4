from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sd2eval.config import DataConfig, PromptsConfig
from sd2eval.dataset import Dataset, load_dataset
from sd2eval.errors import InputError

TEXT: Any = SimpleNamespace(name="512-base", conditioning="text")
DEPTH: Any = SimpleNamespace(name="512-depth", conditioning="depth")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of which two are there, two captions each."""
    (tmp_path / "val").mkdir()
    for number in (0, 1):
        (tmp_path / "val" / f"{number}.jpg").write_bytes(b"")
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)]
    captions = [
        {"id": number, "image_id": number // 2, "caption": f"caption {number}"} for number in range(8)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return tmp_path


def load(root: Path | str | None, *definitions: Any, n: int = 8, allow: bool = True) -> Dataset:
    where = None if root is None else str(root)
    data = DataConfig(name="t", root=where, captions="captions.json", images="val", allow_missing=allow)
    return load_dataset(data, PromptsConfig(n=n, seed=0), definitions)


def test_missing_images_are_counted_unless_allowed(root: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 4 images are missing .* data.allow_missing=true"):
        load(root, TEXT, allow=False)


def test_allowed_missing_images_leave_the_reference_smaller(root: Path) -> None:
    dataset = load(root, TEXT)
    assert [file.name for file in dataset.reference] == ["0.jpg", "1.jpg"]
    assert len(dataset.prompts) == 8


def test_an_image_conditioned_checkpoint_needs_the_captions_own_image(root: Path) -> None:
    with pytest.raises(InputError, match=r"4 of 8 prompts have no image, but 512-depth start"):
        load(root, TEXT, DEPTH)


def test_no_image_at_all_cannot_be_allowed(root: Path) -> None:
    for file in (root / "val").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="4 of 4 images are missing"):
        load(root, TEXT)


def test_more_prompts_than_captions_names_both_numbers(root: Path) -> None:
    with pytest.raises(InputError, match=r"prompts.n=9.*8"):
        load(root, TEXT, n=9)


@pytest.mark.parametrize(
    ("where", "line"), [(None, "data.root: say where"), ("/no/such/folder", "no such folder")]
)
def test_a_root_that_is_not_there_says_what_to_do(where: str | None, line: str) -> None:
    with pytest.raises(InputError, match=line):
        load(where, TEXT)


def test_the_image_of_a_prompt_is_its_own(root: Path) -> None:
    dataset = load(root, TEXT)
    for prompt in dataset.prompts:
        assert dataset.image(prompt) == root / "val" / f"{prompt.caption_id // 2}.jpg"
