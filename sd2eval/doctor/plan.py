"""The sweep that a diagnosis is made for: composed from settings, or read from a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sd2eval.config import CheckpointConfig, SweepConfig
    from sd2eval.store import RunFolder

OUTPUTS = Path("outputs")
"""Where `sweep` makes run folders that were not named."""


@dataclass(frozen=True)
class Plan:
    """A sweep's settings, and where it writes."""

    config: SweepConfig
    definitions: list[CheckpointConfig]
    folder: Path
    """The run folder, which may not exist yet; where none was named, the folder that it will be made in."""
    named: bool
    """Whether the run folder was named."""
    captions: int
    """Per cell; with `prompts.n=auto` the most, or where that is the whole data set, of the first look."""
    images_left: int
    """That are not drawn yet, all cells together."""

    @property
    def images(self) -> int:
        """That the sweep draws, all cells together."""
        return self.captions * len(self.config.guidance_scales) * len(self.definitions)

    def __str__(self) -> str:
        names = ", ".join(definition.name for definition in self.definitions)
        scales = len(self.config.guidance_scales)
        return f"{self.images:,} images: {names} at {_count(scales, 'scale')}, {self.captions:,} captions"


def composed(overrides: tuple[str, ...], folder: Path | None) -> Plan:
    """Return the sweep of settings as `sweep` would take them; `folder` is its run folder (None: `out`).

    Raises:
        InputError: a setting is wrong.
    """
    from sd2eval.config import from_overrides

    config, definitions = from_overrides(*overrides)
    named = folder or (Path(config.out) if config.out else None)
    return _planned(config, definitions, named)


def recorded(store: RunFolder) -> Plan:
    """Return the sweep that was begun in a run folder.

    Raises:
        InputError: its record is damaged, or of another version of sd2eval.
    """
    from sd2eval.config import CheckpointConfig, SweepConfig
    from sd2eval.config.recorded import HERE
    from sd2eval.errors import InputError

    settings = {"engine": dataclasses.asdict(HERE)} | store.read_info().config  # the first versions had none
    try:
        definitions = [CheckpointConfig(**known) for known in settings["checkpoint_definitions"].values()]
        return _planned(_built(SweepConfig, settings), definitions, store.path)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{store.path}/run.json: its settings are those of another sd2eval ({error}); "
            "give the settings of the sweep instead, with out=DIR"
        ) from error


def _planned(config: SweepConfig, definitions: list[CheckpointConfig], named: Path | None) -> Plan:
    from sd2eval.errors import InputError
    from sd2eval.store import RunFolder

    prompts = config.prompts
    captions = int((prompts.most or prompts.first) if prompts.auto else prompts.n)
    folder = (named or OUTPUTS).expanduser()
    store, scales = RunFolder(folder), len(config.guidance_scales)
    done = 0
    with contextlib.suppress(OSError, InputError):  # what is no run is the run folder's own line
        blocks = [block for definition in definitions for block in store.blocks(definition.name)]
        done = scales * sum(map(len, blocks))
    whole = captions * scales * len(definitions)
    return Plan(config, definitions, folder, named is not None, captions, max(whole - done, 0))


def _built(kind: type[Any], values: dict[str, Any]) -> Any:
    """Return a config dataclass from the dictionary that `asdict` made; what it does not know is left out."""
    from sd2eval.config import ExtractorConfig
    from sd2eval.config.recorded import GROUPS

    found = {}
    for field in dataclasses.fields(kind):
        if field.name not in values:
            continue
        value = values[field.name]
        if field.name in GROUPS and isinstance(value, dict):
            value = _built(GROUPS[field.name], value)
        if field.name == "extractors":
            value = {name: _built(ExtractorConfig, settings) for name, settings in value.items()}
        found[field.name] = value
    return kind(**found)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
