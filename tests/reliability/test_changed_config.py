"""A run folder goes on with the settings that it was begun with: every field of the schema, one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sd2eval
from sd2eval.config import CheckpointConfig, SweepConfig, digest, from_overrides, leaves
from sd2eval.errors import InputError
from sd2eval.identity import refuse_other, run_identity
from sd2eval.records import RunInfo
from sd2eval.store import RunFolder
from tests.test_config import changed
from tests.test_store import info

# Between them they have every field of the schema.
RUNS = {
    "alone": ("checkpoint=x4-upscaling", "protocol.metrics=[fd_mini,clip_mini,clip_score_h_14]"),
    "list": ("experiment=smoke", "checkpoints=[512-base,x4-upscaling]"),
}
CONFIGS = {name: from_overrides(*words) for name, words in RUNS.items()}


def fields_of(config: SweepConfig, definitions: list[CheckpointConfig]) -> dict[str, Any]:
    """Return the identity of a run on a CPU, with the digests of its inputs."""
    fields = run_identity(config, definitions, "float32" if config.dtype == "auto" else config.dtype)
    digests = ("weights/x4-upscaling", "data/captions", "extractor/score", "reference", "protocol")
    return fields | {f"digests.{name}": "0" * 64 for name in digests}


def begun(path: Path, name: str) -> RunInfo:
    """Write the record of a run and read it back, as the sweep that resumes it does."""
    fields = fields_of(*CONFIGS[name])
    config = dataclasses.asdict(CONFIGS[name][0])
    RunFolder(path).write_info(info(identity=digest(fields), identity_fields=fields, config=config))
    return RunFolder(path).read_info()


def cases(identity: bool) -> Iterator[tuple[str, str]]:
    """Yield the run and the key of every field that is, or is not, part of what a run is."""
    for name, (config, definitions) in CONFIGS.items():
        for key, _, of_identity in leaves(config):
            if of_identity == identity and not key.startswith("checkpoint"):
                yield name, key
        for definition in definitions:
            for key, _, of_identity in leaves(definition):
                if of_identity == identity:
                    yield name, f"checkpoints.{definition.name}.{key}"


def another(name: str, key: str) -> tuple[SweepConfig, list[CheckpointConfig]]:
    """Return a run's settings with one other value."""
    config, definitions = CONFIGS[name]
    group, _, rest = key.partition(".")
    if group != "checkpoints":
        return changed(config, key), definitions
    checkpoint, field = rest.rsplit(".", 1)
    return config, [changed(one, field) if one.name == checkpoint else one for one in definitions]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RUNS)
def test_the_same_settings_go_on(name: str, tmp_path: Path) -> None:
    refuse_other(begun(tmp_path, name), fields_of(*CONFIGS[name]))


@pytest.mark.parametrize(("name", "key"), list(cases(identity=True)))
def test_each_field_that_can_change_a_number_is_refused_by_its_name(
    name: str, key: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="out holds another run") as refused:
        refuse_other(begun(tmp_path, name), fields_of(*another(name, key)))
    shown = key.removesuffix(".name") if key.startswith("checkpoints.") else key
    assert shown in str(refused.value)


@pytest.mark.parametrize(("name", "key"), list(cases(identity=False)))
def test_each_field_that_cannot_is_free(name: str, key: str, tmp_path: Path) -> None:
    assert another(name, key) != CONFIGS[name]
    refuse_other(begun(tmp_path, name), fields_of(*another(name, key)))


def test_no_field_of_the_schema_is_left_out() -> None:
    seen = {
        key.split(".", 2)[-1] if key.startswith("checkpoints.") else key
        for _, key in [*cases(True), *cases(False)]
    }
    config = CONFIGS["alone"][0]
    every = {key.removeprefix("checkpoint.") for key, _, _ in leaves(config)} - {"checkpoints"}
    assert every <= seen


@pytest.mark.parametrize("name", ["weights/x4-upscaling", "data/captions", "extractor/score", "reference"])
def test_another_input_under_the_same_name_is_refused(name: str, tmp_path: Path) -> None:
    fields = fields_of(*CONFIGS["list"])
    with pytest.raises(InputError, match=f"digests.{name}: 0000"):
        refuse_other(begun(tmp_path, "list"), fields | {f"digests.{name}": "1" * 64})


def test_the_list_of_checkpoints_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    run = sd2eval.run_sweep(
        "experiment=smoke",
        "checkpoints=[512-base]",
        "prompts.n=5",
        "progress=false",
        f"out={tmp_path / 'run'}",
    )
    with pytest.raises(InputError, match=r"checkpoints\.x4-upscaling"):
        sd2eval.run_sweep("experiment=smoke", "prompts.n=5", "progress=false", f"out={run.path}")
