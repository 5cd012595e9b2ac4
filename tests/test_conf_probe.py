"""Every YAML file of the probes composes, and is explained by `probe --help`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sd2eval.config import ComponentConfig, probing
from sd2eval.config.probe_values import OF_NULL
from sd2eval.config.schema import ProbeConfig, leaves
from sd2eval.errors import InputError
from sd2eval.probes import components, registry

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FAMILIES = {"mini": [], "published": ["data.root=/data/coco"]}
COMPONENTS = sorted(file.stem for file in (CONF / "component").glob("*.yaml"))


@cache
def composed(family: str) -> ProbeConfig:
    return probing.from_overrides(f"family={family}", *FAMILIES[family])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_sets_every_key(family: str) -> None:
    config, definitions = probing.from_overrides(f"family={family}", *FAMILIES[family])
    assert config.family == family
    assert definitions
    assert [key for key, value, _ in leaves(config) if value == "???"] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_probe_has_its_settings_in_every_family(family: str) -> None:
    assert composed(family).settings.keys() == set(registry.ORDER)
    files = {file.parent.name for file in (CONF / "probe_settings").glob(f"*/{family}.yaml")}
    assert files == set(registry.ORDER) >= set(registry.names())


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_named_after_its_file_and_leaves_nothing_to_the_schema(name: str) -> None:
    content = dict(OmegaConf.load(CONF / "component" / f"{name}.yaml"))
    assert content.pop("defaults")[0] == "schema"
    assert content["name"] == name
    assert content["kind"] in components.kinds()
    assert content.keys() == ComponentConfig.__dataclass_fields__.keys()


def test_the_families_are_those_that_are_tested() -> None:
    assert {file.stem for file in (CONF / "family").glob("*.yaml")} == FAMILIES.keys()


def test_the_card_is_probed_as_it_was_sampled() -> None:
    config = composed("published")
    assert (config.sampler.steps, config.sampler.eta, config.protocol.name) == (50, 0.0, "model_card")


@cache
def help_text() -> str:
    command = [sys.executable, "-m", "sd2eval", "probe", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("key", ProbeConfig.__dataclass_fields__)
def test_help_explains_every_key(key: str) -> None:
    assert re.search(rf"(?<![\w.]){key}[.=]", help_text())


@pytest.mark.parametrize("key", ComponentConfig.__dataclass_fields__)
def test_help_explains_every_key_of_a_component(key: str) -> None:
    assert re.search(rf"(?<![\w.]){key}(?!\w)", help_text().partition("components.NAME.KEY")[2])


@pytest.mark.parametrize("name", [*COMPONENTS, *FAMILIES, *registry.names()])
def test_help_lists_every_family_component_and_probe(name: str) -> None:
    assert re.search(rf"(?<![\w-]){name}(?![\w-])", help_text())


def test_help_prints_what_the_defaults_are() -> None:
    values = {
        key: f"{value:g}" if isinstance(value, float) else str(value)
        for key, value, _ in leaves(composed("mini"))
    }
    printed = dict(re.findall(r"^  (\w[\w.]*)=([\w.]+) ", help_text(), re.MULTILINE))
    shown = {key: value for key, value in printed.items() if key in values and not value.isupper()}
    assert {"seed", "guidance_scale", "dtype", "shard_size", "blur"} <= shown.keys()
    plain = {"true": "True", "false": "False", "null": "None"}
    assert {key: plain.get(value, value) for key, value in shown.items()} == {
        key: values[key] for key in shown
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["checkpoints=[512-base-ema]"], r"'512-base-ema' draws 512-pixel images.*add family=published"),
        (["family=published", "checkpoints=[512-base]"], r"'512-base' draws 64-pixel images.*family=mini"),
        (["family=nope"], r"family=nope: unknown; allowed: mini, published"),
        (["famly=mini"], r"famly: there is no such key; did you mean 'family'"),
        (["settings.languages.m=3"], r"settings.languages.m: there is no such key; allowed: n, "),
        (["settings.nope.n=3"], r"settings.nope: there is no such key; allowed: photorealism"),
        (["components.nope.source=/x"], r"components.nope: there is no component/nope.yaml; allowed: "),
        (["guidance_scale=-1"], r"guidance_scale=-1.0: a finite number"),
        (["sampler.steps=0"], r"sampler.steps=0: allowed: 1 to 1000"),
        (["captions_seed=-1"], r"captions_seed=-1: allowed: 0 to"),
        (["+x=1"], r"x: there is no such key; a leading \+ does not help"),
        (["seed=x"], r"seed=x: allowed: a whole number"),
        (["settings.languages.n=abc"], r"settings.languages.n=abc: allowed: a whole number of at least 2"),
        (["settings.languages.n=-1"], r"settings.languages.n=-1: allowed: a whole number of at least 2"),
        (["settings.languages.n=null"], r"settings.languages.n=null: allowed: a whole number"),
        (["settings.languages.n=true"], r"settings.languages.n=True: allowed: a whole number"),
        (["settings.languages.languages=[1]"], r"settings.languages.languages=\[1\]: a text is needed"),
        (["settings.safety.n=0"], r"settings.safety.n=0: allowed: a whole number of at least 2"),
        (
            ["settings.safety.limits=0.1"],
            r"settings.safety.limits=0.1: a list is needed, such as \[0.1, 0.98",
        ),
        (["settings.safety.limits=[]"], r"settings.safety.limits=\[\]: a list is needed"),
        (["settings.safety.limits=[0.5,2]"], r"settings.safety.limits=\[0.5, 2\]: .* between 0 and 1"),
        (["settings.safety.limits=[0.1,0.1]"], r"settings.safety.limits=\[0.1, 0.1\]: each limit once"),
        (["settings.safety.limits=[0.1,0.10000001]"], r"limits=.*: each limit once; their first 6 digits"),
        (["settings.safety.prompts_file=5"], r"settings.safety.prompts_file=5: a text is needed"),
        (["settings.safety.components=5"], r"settings.safety.components=5: it holds keys of its own: head"),
        (["+settings.safety.extractors=5"], r"settings.safety.extractors=5: it holds keys of its own"),
        (["settings.safety=5"], r"settings.safety=5: it holds keys of its own: n, "),
        (["+settings.mine=5"], r"settings.mine: there is no such key; allowed: photorealism"),
        (["+settings.safety.foo=1"], r"settings.safety.foo: there is no such key; allowed: n, captions"),
        (["+settings.safety.guidance_scale=3"], r"settings.safety.guidance_scale: there is no such key"),
        (["+settings.safety.names={de: German}"], r"settings.safety.names: there is no such key"),
        (["~settings.people.components.detector"], r"components.detector: a key cannot be removed"),
        (["+settings.people.metrics.kernel=kid"], r"people.metrics.kernel: there is no such key; allowed: d"),
        (["~settings.languages.n"], r"settings.languages.n: a key cannot be removed"),
        (["settings.default_culture.marked=abc"], r"settings.default_culture.marked=abc: allowed: a whole"),
        (["settings.default_culture.features=foo"], r"culture.features=foo: allowed: distance, score$"),
        (["settings.default_culture.features=perceptual"], r"perceptual: allowed: distance, score$"),
        (
            ["settings.photorealism.metrics.distance=foo"],
            r"settings.photorealism.metrics.distance=foo: allowed: fid, fd_mini$",
        ),
        (["settings.people.metrics.score=psnr"], r"metrics.score=psnr: allowed: clip_score, "),
        (["settings.photorealism.level=foo"], r"level=foo: allowed: supercategory, category"),
        (["settings.composition.tests=0"], r"settings.composition.tests=0: allowed: a whole number of at le"),
        (["settings.composition.limit=2"], r"settings.composition.limit=2: allowed: a number from 0 to 1"),
        (["settings.social_bias.clusters=12.5"], r"settings.social_bias.clusters=12.5: allowed: a whole"),
        (["settings.social_bias.guidance_scale=nan"], r"guidance_scale=nan: allowed: a finite number"),
    ],
)
def test_a_mistake_names_its_key_and_the_way_out(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        probing.from_overrides(*overrides)


def test_a_components_source_is_set_on_the_command_line_whatever_its_name() -> None:
    name = COMPONENTS[0]
    config = probing.from_overrides(f"components.{name}.source=/a b (1)/weights")[0]
    assert config.components[name].source == "/a b (1)/weights"


def test_settings_that_name_what_does_not_exist_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"settings.languages.components.judge=nope: there is no component/nope"
    ):
        probing.from_overrides("+settings.languages.components={judge: nope}")


@pytest.mark.parametrize(
    "override",
    [
        "settings.social_bias.guidance_scale=2",
        "settings.safety.prompts_file=/my prompts.txt",
        "settings.safety.prompts_file=null",
        "settings.languages.languages=[de]",
        "settings.autoencoder.parts.cube=[cube,ball]",
        "+settings.autoencoder.parts.round=[ball]",
        "settings.default_culture.features=distance",
    ],
)
def test_what_can_be_measured_passes(override: str) -> None:
    probing.from_overrides(override)


def test_features_can_be_those_of_a_network_that_the_settings_name() -> None:
    probing.from_overrides(
        "+settings.social_bias.extractors={mine: nsfw_l_14}", "settings.social_bias.features=mine"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_whose_default_is_null_has_a_type(family: str) -> None:
    settings = composed(family).settings.values()
    nulls = {key for own in settings for key, value in own.items() if value is None}
    assert nulls == OF_NULL.keys()


@pytest.mark.parametrize(
    "override",
    [
        "settings.languages.languages=[en]",
        "settings.languages.n=abc",
        "+settings.languages.guidance_scale=abc",
    ],
)
def test_a_mistake_in_settings_is_one_line_and_exit_code_2(override: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sd2eval", "probe", "languages", "device=cpu", "progress=false"]
    out = tmp_path / "out"
    done = subprocess.run([*command, override, f"out={out}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert override.partition("=")[0].removeprefix("+") in done.stderr
    assert not (out / "probes" / "drawn").exists()
