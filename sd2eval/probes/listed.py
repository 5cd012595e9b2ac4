"""`probe NAME --prompts`: what a probe would draw, and where that comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sd2eval import answers, terminal
from sd2eval.config import ProbeConfig
from sd2eval.devices import resolve_device
from sd2eval.energy import EnergyMeter
from sd2eval.errors import InputError
from sd2eval.interrupt import Interrupt
from sd2eval.probes import registry
from sd2eval.probes.base import PromptSet
from sd2eval.probes.bench import Shelf, Workbench
from sd2eval.probes.drawing import Studio
from sd2eval.probes.run import whole_dataset
from sd2eval.progress import Progress

WIDTH = 120


def show(names: Sequence[str], config: ProbeConfig) -> None:
    """Print the prompts of probes; nothing is drawn or written.

    Raises:
        InputError: the prompts cannot be read.
    """
    console = terminal.console(WIDTH)
    for name, prompts in prompts_of(names, config).items():
        _show(console, name, prompts)


def prompts_of(names: Sequence[str], config: ProbeConfig) -> dict[str, PromptSet]:
    """Return the prompts of probes by their names.

    Raises:
        InputError: the prompts cannot be read.
    """
    device, dataset = resolve_device(config.device), whole_dataset(config)
    meter, progress = EnergyMeter(config.energy.country), Progress(0, quiet=True)
    nowhere = Path("/nonexistent")
    studio = Studio(nowhere, config, {}, dataset, device, "float32", meter, progress, Interrupt())
    shelf = Shelf(config, dataset, studio, device)
    found = {}
    for name in names:
        try:
            found[name] = registry.find(name).prompts(Workbench(name, shelf))
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return found


def _show(console: Console, name: str, prompts: PromptSet) -> None:
    console.print(f"{name}: {len(prompts.prompts)} prompts", style="bold", highlight=False)
    if not prompts.prompts:
        answers.say(console, f"draws nothing: {prompts.source}")
        console.print()
        return
    console.print(f"source: {prompts.source}", highlight=False, soft_wrap=True)
    console.print(f"licence: {prompts.licence}", highlight=False, soft_wrap=True)
    console.print(f"SHA-256: {prompts.digest}", highlight=False, soft_wrap=True)
    labels = list(dict.fromkeys(label for one in prompts.prompts for label in one.labels))
    table = answers.empty_table("key", "prompt", *labels, left=("prompt", *labels))
    for one in prompts.prompts:
        table.add_row(str(one.key), one.text, *(one.labels.get(label, "") for label in labels))
    terminal.show_whole(console, terminal.keep_whole(table))
    console.print()
