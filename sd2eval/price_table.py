"""The price of a sweep on the terminal, once it is known that what it names is there."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from sd2eval import precision, terminal
from sd2eval.checkpoints import sources
from sd2eval.config import CheckpointConfig, ExtractorConfig, SweepConfig
from sd2eval.config.rules import extractor_key
from sd2eval.dataset import load_dataset
from sd2eval.devices import resolve_device, resolve_dtype
from sd2eval.errors import InputError
from sd2eval.extractors import published_weights
from sd2eval.networks import slots
from sd2eval.price import Estimate, estimate
from sd2eval.progress import format_co2, format_energy
from sd2eval.store import RunFolder
from sd2eval.weights.inventory import locate
from sd2eval.weights.published import published

PIPED_WIDTH = 100
PATH_BEGINNINGS = (".", "/", "~")


def require(config: SweepConfig, definitions: list[CheckpointConfig]) -> tuple[int, list[str]]:
    """Check that what is named on this machine is there; hub ids are not asked for.

    Returns:
        Captions per cell (with prompts.n=auto of the first look), and what the sweep needs beyond what is
        set, one line each.

    Raises:
        InputError: names the key whose file or folder is missing or of no use.
    """
    if config.out is not None:
        RunFolder(Path(config.out)).refuse_foreign()
    for definition in definitions:
        _require_weights(definition)
    for slot in slots(config.protocol, definitions):
        _require_network(config.protocol.extractor(slot), extractor_key(slot))
    precision.require(config, definitions)
    wanting = _to_fetch(config, definitions)
    if config.data.root is None:
        needs = f"the sweep needs data.root=DIR, the folder that holds {config.data.images}/"
        wanting.append(f"data    not set: {needs}")
        count = config.prompts.most or config.prompts.first
    else:
        count = len(load_dataset(config.data, config.prompts, definitions).prompts)
    if isinstance(config.prompts.n, int):
        return config.prompts.n, wanting
    wanting.append(f"n       auto: this is the price of the first look; a cell has up to {count:,} captions")
    return min(config.prompts.first, count), wanting


def _require_weights(definition: CheckpointConfig) -> None:
    source = definition.source
    path = sources.local_path(source)
    if path is None and source.endswith(sources.FILE_SUFFIXES) | source.startswith(PATH_BEGINNINGS):
        raise InputError(f"checkpoint.source={source}: no such file or folder")
    if path is not None and path.is_file() and path.suffix not in sources.FILE_SUFFIXES:
        allowed = " or ".join(sources.FILE_SUFFIXES)
        raise InputError(f"checkpoint.source={source}: a checkpoint in one file ends in {allowed}")
    if definition.lora is not None and not _is_file(definition.lora):
        raise InputError(f"checkpoint.lora={definition.lora}: no such file")
    for name, folder in definition.components.items():
        if not (found := sources.local_path(folder)) or not found.is_dir():
            raise InputError(
                f"checkpoint.components.{name}={folder}: no such folder (for '{definition.name}')"
            )


def _require_network(extractor: ExtractorConfig, key: str) -> None:
    if extractor.source and sources.local_path(extractor.source) is None:
        raise InputError(f"{key}.source={extractor.source}: no such file or folder")


def _to_fetch(config: SweepConfig, definitions: list[CheckpointConfig]) -> list[str]:
    """Return a line for the published weights of networks that a sweep would fetch first."""
    entries = published()
    names = [
        name
        for slot in slots(config.protocol, definitions)
        for name in published_weights(config.protocol.extractor(slot))
        if locate(entries[name]) is None
    ]
    if not names:
        return []
    about = sum(entries[name].about_bytes or 0 for name in dict.fromkeys(names))
    return [f"weights to fetch for the metrics: {', '.join(dict.fromkeys(names))} (about {_bytes(about)})"]


def _is_file(text: str) -> bool:
    path = sources.local_path(text)
    return path is not None and path.is_file()


def show(config: SweepConfig, definitions: list[CheckpointConfig]) -> None:
    """Print the plan and its price.

    Raises:
        InputError: the sweep could not run: see `require`.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    n, wanting = require(config, definitions)
    price = estimate(config, definitions, n, device, dtype)
    console = terminal.console(PIPED_WIDTH)
    terminal.show_whole(console, terminal.keep_whole(_table(price, len(config.guidance_scales))))
    lines = (
        f"time    on {device} in {dtype}, from {price.basis}; extractors and start-up come on top",
        f"disk    {_bytes(price.disk_bytes)} with images={config.images}",
        f"energy  {format_energy(price.kwh)} at an assumed {price.watts:g} W",
        f"CO2     {format_co2(price.kwh * price.kg_per_kwh).removesuffix(' CO2')} on the grid of "
        f"{config.energy.country} ({price.kg_per_kwh:.3f} kg/kWh)",
        *wanting,
        "nothing was run; leave out dry_run=true to start",
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def _table(price: Estimate, cells: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("checkpoint", "cells", "images", "UNet calls", "TFLOP", "time"):
        table.add_column(head, justify="left" if head == "checkpoint" else "right")
    for row in price.prices:
        table.add_row(row.name, *_numbers(cells, row.images, row.unet_calls, row.flops, row.hours))
    images, calls, flops = (
        sum(getattr(row, name) for row in price.prices) for name in ("images", "unet_calls", "flops")
    )
    table.add_section()
    table.add_row("all", *_numbers(cells * len(price.prices), images, calls, flops, price.hours))
    return table


def _numbers(cells: int, images: int, calls: int, flops: float, hours: float) -> tuple[str, ...]:
    return f"{cells:,}", f"{images:,}", f"{calls:,}", f"{flops / 1e12:,.1f}", _hours(hours)


def _hours(hours: float) -> str:
    return (
        f"{hours:,.1f} h"
        if hours >= 1
        else f"{60 * hours:.1f} min"
        if hours >= 1 / 60
        else f"{3600 * hours:.1f} s"
    )


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
