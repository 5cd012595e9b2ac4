"""Weights that are not what their name or their prediction type says are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sd2eval import checkpoints
from sd2eval.checkpoints import check_prediction, identify
from sd2eval.checkpoints.prediction import noise_cosine
from sd2eval.checkpoints.sources import resolve
from sd2eval.config import CheckpointConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.transfer.digests import file_digest
from sd2eval.weights import published

MINI = from_overrides()[1]
NAMES = [definition.name for definition in MINI]


def real(published: str, source: Path, **changes: Any) -> CheckpointConfig:
    overrides = ("experiment=model_card", "data.root=.", f"checkpoint={published}")
    return dataclasses.replace(from_overrides(*overrides)[1][0], source=str(source), **changes)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files whose digests are in a table like the published one."""
    lines, files = published.TABLE.read_text().splitlines(), {}
    for name in ("512-base-ema", "768-v-ema", "v2-1_512-ema-pruned"):
        file = tmp_path / f"{name}.ckpt"
        file.write_text(name)
        (digest,) = (entry.sha256 for entry in published.published().values() if entry.name == name)
        lines = [line.replace(str(digest), file_digest(file)) for line in lines]
        files[name] = file
    table = tmp_path / "published.csv"
    table.write_text("\n".join(lines))
    monkeypatch.setattr("sd2eval.checkpoints.identity.TABLE", table)
    return files


def identified(definition: CheckpointConfig) -> str:
    return identify(definition, resolve(definition))


def test_a_published_file_under_its_own_name_is_named_by_its_digest(known: dict[str, Path]) -> None:
    for name in ("512-base-ema", "768-v-ema"):
        assert identified(real(name, known[name])) == file_digest(known[name])


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        ("768-v-ema", "512-base-ema", {}, r"is 512-base-ema, .* 2.0 base .*prediction_type=v_pred"),
        ("512-base-ema", "768-v-ema", {"name": "mine"}, r"is 768-v-ema, .*'mine' has .*_type=epsilon"),
        ("512-base-ema", "v2-1_512-ema-pruned", {}, r"is v2-1_512-ema-pruned, .* 2.1 .*not 512-base-ema"),
    ],
)
def test_another_published_file_is_refused_by_what_it_is(
    known: dict[str, Path], name: str, file: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        identified(real(name, known[file], **changes))
    assert "\n" not in str(caught.value)


def test_a_published_file_may_bear_a_name_of_ones_own(known: dict[str, Path]) -> None:
    assert identified(real("512-base-ema", known["v2-1_512-ema-pruned"], name="two-one"))


def test_an_unknown_file_needs_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "512-base-ema.ckpt"
    file.write_text("not published")
    with pytest.raises(
        InputError, match=r"is not the published 512-base-ema .*checkpoint.name=NAME checkpoint.pred"
    ):
        identified(real("512-base-ema", file))
    assert identified(real("512-base-ema", file, name="mine")) == file_digest(file)


def test_where_no_digest_is_published_the_first_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "512-depth-ema.ckpt"
    file.write_text("first")
    assert identified(real("512-depth-ema", file)) == identified(real("512-depth-ema", file))
    file.write_text("second")
    with pytest.raises(InputError, match=r"'512-depth-ema' from .* was recorded at its first use"):
        identified(real("512-depth-ema", file))


def test_the_scheduler_of_a_diffusers_folder_is_believed(tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / part).mkdir()
    file = tmp_path / "scheduler" / "scheduler_config.json"
    wanted = real("768-v-ema", tmp_path, name="mine", file=None)
    file.write_text(json.dumps({"prediction_type": "v_prediction"}))
    assert identified(wanted)
    file.write_text(json.dumps({"beta_start": 0.1}))  # diffusers' default is epsilon
    with pytest.raises(
        InputError, match=r"scheduler in .* says epsilon, but checkpoint.prediction_type=v_pred"
    ):
        identified(wanted)


def test_a_published_name_stands_for_the_published_file_alone(known: dict[str, Path], tmp_path: Path) -> None:
    base = known["512-base-ema"]
    lora = tmp_path / "lora.safetensors"
    lora.write_text("any")
    (tmp_path / "vae").mkdir()
    for changes, what in (
        ({"lora": str(lora)}, "lora"),
        ({"components": {"vae": str(tmp_path / "vae")}}, "vae"),
        ({"architecture": str(tmp_path)}, "architecture"),
    ):
        with pytest.raises(
            InputError, match=f"is the name of published weights, but {what} would change them"
        ):
            identified(real("512-base-ema", base, **changes))
        assert identified(real("512-base-ema", base, name="mine", **changes))


def test_a_folder_is_not_taken_for_a_published_file(tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
    wanted = real("512-base-ema", tmp_path, file=None)
    with pytest.raises(
        InputError, match="cannot be recognised as the published 512-base-ema, which is 512-base"
    ):
        identified(wanted)
    assert identified(dataclasses.replace(wanted, name="mine"))


def test_a_noise_level_in_the_name_does_not_hide_what_the_name_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "x4-upscaler-ema.ckpt"
    file.write_text("first")
    identified(real("x4-upscaling-ema", file))
    file.write_text("second")
    for level in (0, 100):
        swept = real("x4-upscaling-ema", file, name=f"x4-upscaling-ema-noise{level}", noise_level=level)
        with pytest.raises(InputError, match=r"'x4-upscaling-ema' from .* was recorded at its first use"):
            identified(swept)


def test_weights_that_answer_with_nan_predict_nothing() -> None:
    checkpoint = checkpoints.load(MINI[1], torch.device("cpu"), torch.float32)
    checkpoint.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="'768-v' answers pure noise with NaN or infinity"):
        check_prediction(checkpoint)


@pytest.mark.parametrize("definition", MINI, ids=NAMES)
def test_the_answer_to_noise_tells_what_a_network_predicts(definition: CheckpointConfig) -> None:
    checkpoint = checkpoints.load(definition, torch.device("cpu"), torch.float32)
    check_prediction(checkpoint)
    cosine = noise_cosine(checkpoint)
    assert cosine > 0.99 if definition.prediction_type == "epsilon" else abs(cosine) < 0.2
    other = {"epsilon": "v_prediction", "v_prediction": "epsilon"}[definition.prediction_type]
    wrong = dataclasses.replace(checkpoint, definition=dataclasses.replace(definition, prediction_type=other))
    with pytest.raises(InputError, match=f"'{definition.name}' .*predict.*given pure noise"):
        check_prediction(wrong)
