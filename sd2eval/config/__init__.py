"""Composing the settings of a sweep with Hydra, and checking them.

Values live in `conf/*.yaml`, types in `schema`, further rules in `rules`, messages in `mistakes`.
Only this package and `runners/` know Hydra; everything else receives the dataclasses.
"""

from __future__ import annotations

import dataclasses
import textwrap

from hydra import compose, initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sd2eval.config.mistakes import check_words, explain, one_line, readable, refuse_added
from sd2eval.config.quoting import as_typed
from sd2eval.config.rules import CHOICES, allowed, check, check_checkpoint
from sd2eval.config.schema import (
    CheckpointConfig,
    ComponentConfig,
    DataConfig,
    EnergyConfig,
    EngineConfig,
    ExtractorConfig,
    ProbeConfig,
    PromptsConfig,
    ProtocolConfig,
    SamplerConfig,
    SweepConfig,
    digest,
    identity_fields,
    leaves,
)
from sd2eval.errors import InputError
from sd2eval.metrics import METRICS, ROLES
from sd2eval.plugins import conf_packages, extractor_kinds

__all__ = [
    "CHOICES",
    "CONFIG_MODULE",
    "CheckpointConfig",
    "ComponentConfig",
    "DataConfig",
    "EnergyConfig",
    "EngineConfig",
    "ExtractorConfig",
    "ProbeConfig",
    "PromptsConfig",
    "ProtocolConfig",
    "SamplerConfig",
    "SweepConfig",
    "check_words",
    "checkpoint_definitions",
    "digest",
    "explain",
    "from_group",
    "from_overrides",
    "group_options",
    "identity_fields",
    "leaves",
    "readable",
    "register",
    "typed",
]

CONFIG_MODULE = "sd2eval.conf"


class PluginSettings(SearchPathPlugin):
    """Lets Hydra find the YAML files of plug-ins: after our own, before those of `--config-dir`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add them where our own are; another application of Hydra in this process does not get them."""
        if any(item.path == f"pkg://{CONFIG_MODULE}" for item in search_path.get_path()):
            for package in conf_packages():
                search_path.append("sd2eval plug-in", f"pkg://{package}")


def register() -> None:
    """Tell Hydra the schema, so that it refuses misspelt keys and wrong types by name, and the plug-ins.

    Raises:
        InputError: a plug-in is not as docs/plugins.md says.
    """
    conf_packages(), extractor_kinds(), list(METRICS)  # here, because Hydra would hide what is wrong with one
    Plugins.instance().register(PluginSettings)
    store = ConfigStore.instance()
    store.store(name="sweep_schema", node=SweepConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="protocol", name="schema", node=ProtocolConfig)
    store.store(group="extractor", name="schema", node=ExtractorConfig)
    store.store(group="checkpoint", name="schema", node=CheckpointConfig)
    store.store(group="engine", name="schema", node=EngineConfig)
    store.store(name="probe_schema", node=ProbeConfig)
    store.store(group="component", name="schema", node=ComponentConfig)
    # For the help text in conf/: ${options:checkpoint} and ${allowed:dtype}.
    OmegaConf.register_new_resolver("options", lambda group: ", ".join(group_options(group)), replace=True)
    OmegaConf.register_new_resolver("allowed", allowed, replace=True)
    OmegaConf.register_new_resolver("lines", _in_lines, replace=True)


def _in_lines(which: str) -> str:
    """Return the `mini` or the `published` metrics, or a group's options, in lines of the help text."""
    metrics = [name for name, metric in METRICS.items() if metric.mini == (which == "mini")]
    names = ", ".join(metrics if which in ("mini", "published") else group_options(which))
    return textwrap.fill(names, HELP_WIDTH, break_on_hyphens=False).replace("\n", f"\n{HELP_INDENT}")


HELP_WIDTH = 75
HELP_INDENT = 27 * " "


def group_options(group: str) -> list[str]:
    """Return the files of a group; needs an initialised Hydra."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return [name for name in hydra.config_loader.get_group_options(group) if name != "schema"]


def typed(config: DictConfig) -> SweepConfig:
    """Return the composed config as dataclasses, checked.

    Raises:
        InputError: a value is missing or outside what is allowed; the message names the key.
    """
    refuse_added(config)
    try:
        _fill_extractors(config)
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise InputError(one_line(error)) from error
    assert isinstance(result, SweepConfig)
    for key, value, _ in leaves(result):
        if value == MISSING:
            raise InputError(f"{key}: a value is needed")
    check(result)
    return result


def _fill_extractors(config: DictConfig) -> None:
    """Add the extractors that metrics ask for by name; what the command line says of one stays.

    Raises:
        InputError: a metric's extractor has no YAML.
    """
    metrics = [METRICS[name] for name in config.protocol.metrics if name in METRICS]
    given = config.protocol.extractors
    for metric in metrics:
        slot = metric.extractor
        if slot is None or slot in ROLES:
            continue
        if slot not in group_options("extractor"):
            raise InputError(
                f"protocol.metrics={metric.name}: it needs extractor/{slot}.yaml, and there is none"
            )
        try:
            with open_dict(given):
                given[slot] = OmegaConf.merge(from_group("extractor", slot), given.get(slot) or {})
        except OmegaConfBaseException as error:
            raise InputError(f"protocol.extractors.{slot}: {str(error).splitlines()[0]}") from error
    used = {metric.extractor for metric in metrics}
    for slot in given:
        if slot not in used:
            raise InputError(f"protocol.extractors.{slot}: no metric in protocol.metrics uses it")


def from_overrides(*overrides: str, config_name: str = "sweep") -> tuple[SweepConfig, list[CheckpointConfig]]:
    """Compose the config as the command line would, for use from Python.

    Args:
        overrides: Hydra overrides such as `"prompts.n=8"`.
        config_name: top-level file in `conf/`.

    Returns:
        The config and the definitions of its checkpoints.

    Raises:
        InputError: an override is wrong; the message names its key.
    """
    register()
    check_words(overrides)
    with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
        try:
            composed = compose(config_name=config_name, overrides=as_typed(overrides))
        except Exception as error:
            line = explain(error, overrides)
            if line is None:
                raise
            raise InputError(line) from error
        config = typed(composed)
        return config, checkpoint_definitions(config)


def checkpoint_definitions(config: SweepConfig) -> list[CheckpointConfig]:
    """Return the definitions behind `checkpoints=[...]`, or the one given as `checkpoint=NAME`.

    Needs an initialised Hydra, whose search path (`--config-dir` included) holds the `checkpoint/` group.
    """
    if config.checkpoint is not None:
        definitions = [config.checkpoint]
    else:
        definitions = [_checkpoint_definition(name) for name in config.checkpoints]
    definitions = _at_noise_levels(definitions, config.noise_levels)
    for definition in definitions:
        check_checkpoint(definition, config.protocol)
    return [_as_drawn(definition, config.protocol) for definition in definitions]


def _at_noise_levels(definitions: list[CheckpointConfig], levels: list[int]) -> list[CheckpointConfig]:
    """Return the definitions, each upscaling one once for every level, under a name that says it."""
    if levels and not any(definition.conditioning == "upscaling" for definition in definitions):
        raise InputError("noise_levels: only an upscaling checkpoint has them, and none is swept")
    found = []
    for definition in definitions:
        if not levels or definition.conditioning != "upscaling":
            found.append(definition)
            continue
        found += [
            dataclasses.replace(definition, name=f"{definition.name}-noise{level}", noise_level=level)
            for level in levels
        ]
    return found


def _as_drawn(definition: CheckpointConfig, protocol: ProtocolConfig) -> CheckpointConfig:
    """Return the definition with the resolution that it is drawn at; nothing later changes it."""
    if protocol.sample_at == "checkpoint":
        return definition
    return dataclasses.replace(definition, resolution=protocol.resolution)


def _checkpoint_definition(name: str) -> CheckpointConfig:
    if name not in group_options("checkpoint"):
        raise InputError(
            f"checkpoints: '{name}' is unknown; allowed: {', '.join(group_options('checkpoint'))}"
        )
    result = OmegaConf.to_object(from_group("checkpoint", name))
    assert isinstance(result, CheckpointConfig)
    return result


def from_group(group: str, name: str) -> DictConfig:
    """Return a file of a group as it composes by itself; needs an initialised Hydra."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    loaded = hydra.config_loader.load_configuration(
        f"{group}/{name}", overrides=[], run_mode=RunMode.RUN, validate_sweep_overrides=False
    )
    node: DictConfig = loaded[group]
    return node
