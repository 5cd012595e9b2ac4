"""What an extractor will fetch is known before anything begins, and is all that it fetches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sd2eval import extractors
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor, published_weights
from sd2eval.weights.published import published

CONF = Path(__file__).parents[2] / "conf" / "extractor"
FILES = sorted(CONF.glob("*.yaml"))
REAL = [file for file in FILES if not file.stem.startswith("mini")]


def config(file: Path, **changes: object) -> ExtractorConfig:
    loaded = OmegaConf.load(file)
    fields = {key: value for key, value in loaded.items() if key != "defaults"}
    return ExtractorConfig(**fields | changes)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_network_of_ours_needs_nothing_and_any_other_entries_of_the_table(file: Path) -> None:
    needed = published_weights(config(file))
    assert set(needed) <= published().keys()
    assert bool(needed) == (not file.stem.startswith("mini"))


@pytest.mark.parametrize(
    "file", [file for file in FILES if not file.stem.startswith("mini")], ids=lambda f: f.stem
)
def test_loading_asks_for_what_was_said_first(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is here and nothing can be had: the first entry that is missed is one of those named."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    needed = published_weights(config(file))
    with torch.device("meta"), pytest.raises(InputError) as caught:  # some build gigabytes before they read
        load_extractor(config(file), torch.device("cpu"))
    assert str(caught.value).startswith(tuple(needed))
    assert "models fetch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_local_copy_needs_nothing(tmp_path: Path) -> None:
    for file in FILES:
        if OmegaConf.load(file).kind not in ("image_reward", "clip_head"):  # two files
            assert published_weights(config(file, source=str(tmp_path))) == ()


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(InputError, match="extractor kind 'magic' is unknown; allowed: "):
        extractors.published_weights(config(FILES[0], kind="magic"))
