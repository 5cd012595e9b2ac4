"""The rules of the config: identity or runtime, what each key allows, and who is asked what a name means."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sd2eval import plugins
from sd2eval.config import (
    CHOICES,
    ComponentConfig,
    ProbeConfig,
    SweepConfig,
    check_words,
    digest,
    explain,
    from_overrides,
    identity_fields,
    leaves,
    probing,
)
from sd2eval.config.schema import schema_keys
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS


def words(text: str) -> list[str]:
    return text.split()


# Which fields change pixels or scores is decided here a second time, by a person. Whoever adds a field to the
# schema adds it to one of the two: identity if a number can depend on it and no digest in run.json covers it.
IDENTITY = words("""
checkpoints guidance_scales noise_levels prompts.n prompts.first prompts.most prompts.seed precision seed
sampler.steps sampler.eta data.name dtype
checkpoint.name checkpoint.conditioning checkpoint.prediction_type checkpoint.resolution checkpoint.beta_start
checkpoint.beta_end checkpoint.text checkpoint.noise_level checkpoint.architecture checkpoint.lora_scale
protocol.name protocol.resolution protocol.resize protocol.fit protocol.quantize protocol.sample_at
protocol.metrics protocol.reference_jpeg
protocol.distance.name protocol.distance.kind protocol.distance.model protocol.distance.pretrained
protocol.score.name protocol.score.kind protocol.score.model protocol.score.pretrained
protocol.perceptual.name protocol.perceptual.kind protocol.perceptual.model protocol.perceptual.pretrained
protocol.distance.preprocess protocol.distance.dtype protocol.score.preprocess protocol.score.dtype
protocol.perceptual.preprocess protocol.perceptual.dtype
protocol.extractors.open_clip_vit_h_14.name protocol.extractors.open_clip_vit_h_14.kind
protocol.extractors.open_clip_vit_h_14.model protocol.extractors.open_clip_vit_h_14.pretrained
protocol.extractors.open_clip_vit_h_14.preprocess protocol.extractors.open_clip_vit_h_14.dtype
""")
RUNTIME = words("""
data.root data.captions data.images data.allow_missing
protocol.distance.source protocol.distance.batch_size protocol.score.source protocol.score.batch_size
protocol.perceptual.source protocol.perceptual.batch_size
protocol.extractors.open_clip_vit_h_14.source protocol.extractors.open_clip_vit_h_14.batch_size
checkpoint.source checkpoint.file checkpoint.revision checkpoint.components checkpoint.lora
device batch_size shard_size images out dry_run progress energy.country
engine.name engine.workers engine.tries engine.address
engine.cluster engine.partition engine.account engine.minutes engine.gpus_per_worker engine.cpus_per_worker
engine.memory engine.python engine.folder engine.parameters
""")


# What a probe has besides the groups that it shares with a sweep; inside those, the same leaves are the same.
PROBE_IDENTITY = words(
    "family checkpoints guidance_scale seed captions_seed settings components extractors dtype"
)
PROBE_RUNTIME = words("device batch_size shard_size blur out progress")
SHARED = words("checkpoint sampler data protocol energy engine")
COMPONENT_IDENTITY = words("name kind model pretrained dtype options")
COMPONENT_RUNTIME = words("source batch_size")


def declared(schema: Any) -> dict[str, bool]:
    return {key: identity for key, identity in schema_keys(schema) if "." not in key}


def test_every_field_of_a_probes_schema_is_declared_identity_or_runtime() -> None:
    shared = {key: value for key, value in declared(SweepConfig).items() if key in SHARED}
    own = dict.fromkeys(PROBE_IDENTITY, True) | dict.fromkeys(PROBE_RUNTIME, False)
    assert declared(ProbeConfig) == own | shared
    component = dict.fromkeys(COMPONENT_IDENTITY, True) | dict.fromkeys(COMPONENT_RUNTIME, False)
    assert declared(ComponentConfig) == component


def test_a_components_settings_reach_the_identity_and_its_place_does_not() -> None:
    name = "mini_detector"
    plain = probing.from_overrides()[0]
    elsewhere = probing.from_overrides(f"components.{name}.source=/elsewhere")[0]
    other = probing.from_overrides(f"components.{name}.dtype=float16")[0]
    assert digest(identity_fields(elsewhere)) == digest(identity_fields(plain))
    assert digest(identity_fields(other)) != digest(identity_fields(plain))


@pytest.fixture(scope="module")
def config() -> SweepConfig:
    metrics = "protocol.metrics=[fd_mini,clip_mini,clip_score_h_14]"  # the last brings a network of its own
    return from_overrides("checkpoint=x4-upscaling", metrics)[0]


def changed(config: SweepConfig, key: str) -> SweepConfig:
    """Return a copy in which one leaf has another value."""
    copied: Any = copy.deepcopy(config)
    *groups, name = key.split(".")
    owner = copied
    for group in groups:
        owner = owner[group] if isinstance(owner, dict) else getattr(owner, group)
    value = getattr(owner, name)
    other: Any
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int | float):
        other = value + 1
    elif isinstance(value, list):
        other = value[:-1] or [1]
    elif isinstance(value, dict):
        other = value | {"unet": "elsewhere"}
    else:
        other = f"{value} changed"
    setattr(owner, name, other)
    return copied  # type: ignore[no-any-return]


def test_every_field_of_the_schema_is_declared_identity_or_runtime(config: SweepConfig) -> None:
    assert sorted(key for key, _, _ in leaves(config)) == sorted(IDENTITY + RUNTIME)


@pytest.mark.parametrize("key", IDENTITY)
def test_an_identity_field_changes_the_digest(config: SweepConfig, key: str) -> None:
    assert digest(identity_fields(changed(config, key))) != digest(identity_fields(config))


@pytest.mark.parametrize("key", RUNTIME)
def test_a_runtime_field_does_not_change_the_digest(config: SweepConfig, key: str) -> None:
    assert changed(config, key) != config
    assert digest(identity_fields(changed(config, key))) == digest(identity_fields(config))


def test_digest_depends_on_content_and_not_on_order() -> None:
    assert digest({"a": 1, "b": [2.0]}) == digest({"b": [2.0], "a": 1}) != digest({"a": 1, "b": [3.0]})


def test_a_metric_needs_kinds_that_exist_and_is_mini_when_they_are() -> None:
    for metric in METRICS.values():
        assert set(metric.needs) <= plugins.extractor_kinds().keys()
        mini = [kind.startswith("mini_") for kind in metric.needs] or [metric.name.endswith("_mini")]
        assert mini == len(mini) * [metric.mini]


def test_every_kind_of_extractor_can_be_loaded() -> None:
    for module in plugins.extractor_kinds().values():
        assert callable(plugins.load(module).load)


def test_a_further_extractor_comes_with_its_metric_and_can_be_changed() -> None:
    words = [
        "protocol=model_card",
        "protocol.metrics=[clip_score,clip_score_h_14]",
        "checkpoint=512-base-ema",
    ]
    own = from_overrides(*words, "+protocol.extractors.open_clip_vit_h_14.source=/mine")[0].protocol
    plain = from_overrides(*words)[0].protocol
    assert own.extractor("open_clip_vit_h_14").model == "ViT-H-14"
    assert (own.extractor("open_clip_vit_h_14").source, own.score.source) == ("/mine", None)
    key = "protocol.extractors.open_clip_vit_h_14.source"  # the + can be left out
    assert from_overrides(*words, f"{key}=/mine")[0].protocol == own
    assert digest(identity_fields(own)) == digest(identity_fields(plain))
    other = from_overrides(*words, "+protocol.extractors.open_clip_vit_h_14.dtype=float16")[0].protocol
    assert digest(identity_fields(other)) != digest(identity_fields(plain))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+protocol.extractors.open_clip_vit_h_14.sorce=x", "sorce"),
        ("+protocol.extractors.open_clip_vit_b_32.source=x", "no metric in protocol.metrics uses it"),
        ("+protocol.extractors.open_clip_vit_h_14.kind=inception", "stands for protocol.extractors"),
        ("+protocol.extractors.open_clip_vit_h_14.kind=magic", "allowed: .*inception"),
        ("+protocol.extractors.open_clip_vit_h_14.dtype=float8", "allowed: float32"),
        ("+protocol.extractors.open_clip_vit_h_14.batch_size=0", "at least 1"),
        ("protocol.reference_jpeg=101", "allowed: 1 to 100"),
        ("prompts.n=4", "prompts.n=4: recall needs at least 5 images"),
    ],
)
def test_a_mistake_in_an_extractor_or_a_protocol_is_named(word: str, message: str) -> None:
    metrics = "protocol.metrics=[clip_score,clip_score_h_14,recall]"
    with pytest.raises(InputError, match=message) as caught:
        from_overrides("protocol=model_card", metrics, "checkpoint=512-base-ema", word)
    assert "\n" not in str(caught.value)


def test_components_are_those_that_checkpoints_have() -> None:
    from sd2eval.checkpoints.sources import COMPONENTS

    assert set(CHOICES["checkpoint.components"]) == {name for names in COMPONENTS.values() for name in names}
    assert set(CHOICES["checkpoint.conditioning"]) == COMPONENTS.keys()


def test_dtypes_are_those_of_torch() -> None:
    import torch

    assert all(getattr(torch, name).is_floating_point for name in CHOICES["dtype"] if name != "auto")


@pytest.mark.parametrize("conditioning", CHOICES["checkpoint.conditioning"])
@pytest.mark.parametrize("quantize", CHOICES["protocol.quantize"])
def test_what_an_error_message_allows_is_accepted(conditioning: str, quantize: str) -> None:
    level = 5 if conditioning == "upscaling" else "null"
    settings = [f"checkpoint.conditioning={conditioning}", f"checkpoint.noise_level={level}"]
    config, definitions = from_overrides("checkpoint=512-base", *settings, f"protocol.quantize={quantize}")
    assert definitions[0].conditioning == conditioning
    assert config.protocol.quantize == quantize


@pytest.mark.parametrize(
    "override",
    [
        "sampler.eta=1",
        "sampler.steps=1000",
        "guidance_scales=[0]",
        "device=cuda:3",
        "energy.country=fra",
        "seed=9223372036854775807",
        "batch_size=1",
        "checkpoints=[x4-upscaling]",
    ],
)
def test_the_edges_of_what_is_allowed_are_allowed(override: str) -> None:
    from_overrides(override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prompts.m=1", "prompts.n"),
        ("data=nope", "coco, coco2014, mini"),
        ("seed=1,2", r"seed=\[1,2\]"),
        ("--foo", "--foo"),
    ],
)
def test_from_python_a_wrong_override_is_an_input_error(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_overrides(override)


def test_a_config_is_composed_again_after_one_that_failed() -> None:
    for override in ("prompts.n=x", "checkpoints=[nope]", "data=nope"):
        with pytest.raises(InputError):
            from_overrides(override)
    assert from_overrides("prompts.n=5")[0].prompts.n == 5


def test_only_the_users_mistakes_are_explained() -> None:
    assert explain(ValueError("a bug"), ["checkpoint.name=x"]) is None
    assert explain(AssertionError("a bug"), ["checkpoint.name=x"]) is None


def test_a_word_that_hydra_would_pass_over_is_refused() -> None:
    for word in ("=3", "-3", "--cfg=nope", "--resolve"):
        with pytest.raises(InputError):
            check_words([word])
    check_words(
        ["seed=1", "+checkpoint.components.vae=x", "~experiment", "extractor@protocol.score=mini_clip"]
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol.sample_at=native"], "protocol.sample_at=native: allowed: checkpoint, protocol"),
        (
            ["protocol.perceptual.kind=lpips"],
            "allowed: .*lpips_alex, .*mini_lpips",
        ),
        (["protocol.metrics=[lpips]"], "this name stands for protocol.perceptual.kind=lpips_alex"),
        (["protocol.metrics=[lpips_mask]"], "this name stands for protocol.perceptual.kind=lpips_alex"),
        (["protocol.metrics=[ssim]", "protocol.resolution=31"], "protocol.resolution must be at least 32"),
        (["protocol.perceptual.batch_size=0"], "at least 1"),
        (["protocol=mini_native", "protocol.resolution=60"], "protocol.resolution=60: .* a multiple of 8"),
        (["protocol=mini_native", "protocol.resolution=72"], "too small for protocol=mini_native"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused_by_key(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_overrides("checkpoints=[512-base]", *overrides)


def test_the_smallest_images_with_windows_are_allowed() -> None:
    from_overrides("protocol.resolution=32")
    from_overrides("protocol.resolution=31", "protocol.metrics=[psnr,psnr_mask]")
    from_overrides("protocol.resolution=60")  # not drawn at


@pytest.mark.parametrize("given", ["checkpoints=[768-v]", "checkpoint=768-v"])
def test_what_is_drawn_at_the_protocols_resolution_is_so_in_the_definition(given: str) -> None:
    assert from_overrides(given)[1][0].resolution == 96
    (drawn,) = from_overrides(given, "protocol=mini_native")[1]
    assert drawn.resolution == 64
    assert identity_fields(drawn) != identity_fields(from_overrides(given)[1][0])
    (wider,) = from_overrides("checkpoint=512-depth", "checkpoint.resolution=128", "protocol=mini_native")[1]
    assert wider.resolution == 64


def test_noise_levels_are_curves_of_their_own_for_upscaling_checkpoints_only() -> None:
    definitions = from_overrides("checkpoints=[512-base,x4-upscaling]", "noise_levels=[0,100]")[1]
    assert [(definition.name, definition.noise_level) for definition in definitions] == [
        ("512-base", None),
        ("x4-upscaling-noise0", 0),
        ("x4-upscaling-noise100", 100),
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["checkpoints=[512-base]", "noise_levels=[20]"], "noise_levels: only an upscaling checkpoint"),
        (["checkpoints=[x4-upscaling]", "noise_levels=[20,20]"], "each level once"),
        (["checkpoints=[x4-upscaling]", "noise_levels=[1000]"], r"noise_levels=\[1000\]: allowed: 0 to 999"),
    ],
)
def test_noise_levels_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_overrides(*overrides)
