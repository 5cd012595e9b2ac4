"""One run's distance under all protocols, from its PNGs on disk: how much of a difference is only protocol.

The run's own protocol comes first and must give the run's own results again: that it does is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sd2eval import evaluate, report
from sd2eval.errors import InputError
from sd2eval.matrix.candidates import candidates
from sd2eval.matrix.pngs import CellImages, images_of
from sd2eval.matrix.presets import (
    Preset,
    comparable_metrics,
    differs,
    distance_metric,
    named,
    not_varied,
    own_preset,
    png_side,
    preset_names,
)
from sd2eval.matrix.ranks import rank
from sd2eval.matrix.result import Agreement, ProtocolMatrix, Shift, Spread, Value
from sd2eval.metrics import METRICS, Metric
from sd2eval.records import RunInfo
from sd2eval.statistics import average, difference, standard_error
from sd2eval.store import RunFolder

if TYPE_CHECKING:
    from sd2eval.matrix.scored import Scored

Definitions = Mapping[str, Mapping[str, Any]]


def protocol_matrix(
    run: str | Path,
    *,
    protocols: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
    scales: Sequence[float] = (),
    metric: str = "",
    data_root: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    on_step: Callable[[str], object] = lambda _: None,
) -> ProtocolMatrix:
    """Compute a run's distance under several protocols: `print(protocol_matrix("runs/mine").sentence)`.

    Args:
        run: folder of a run with images=all.
        protocols: presets; empty takes all that can be computed. The run's own is always there.
        checkpoints: of the run; empty takes all that are complete.
        scales: guidance scales; empty takes all.
        metric: such as `fid` or `kid`; empty takes the distance of the run's protocol.
        data_root: folder of the data set; None takes the one that the run was made with.
        overrides: further settings of the presets, such as `protocol.distance.source=FILE`.
        device: as of a sweep.
        on_step: called with what is being done.

    Raises:
        InputError: something given is wrong, an image is missing or changed, or no protocol can be computed.
        Stopped: it was interrupted; the same call goes on.
    """
    store = RunFolder.at(run)
    info = store.read_info()
    own = own_preset(info)
    names = named(protocols, preset_names(), "protocol")
    chosen = _metric(metric, own)
    images, notes = _images(store, info, chosen, own, checkpoints, scales)
    drew = {image.cell.checkpoint: definition(info, image.cell.checkpoint) for image in images}
    found = candidates(names, own, chosen, drew, overrides)
    from sd2eval.matrix.scored import score  # torch, and only now that the words are checked

    scored = score(store, info, found, images, chosen, data_root, device, on_step)
    return ProtocolMatrix(
        run=str(store.path),
        metric=chosen.name,
        own=found.own,
        protocol=f"{info.config['protocol']['name']}@{info.digests['protocol'][:8]}",
        reference_n=info.reference_n,
        first=scored.presets[0].name,
        values=_values(scored, chosen),
        shifts=_shifts(scored, own, drew),
        spreads=_spreads(scored),
        ranks=_ranks(scored, chosen),
        left_out=scored.left_out,
        agreement=_agreement(store, scored, chosen),
        notes=notes,
    )


def definition(info: RunInfo, checkpoint: str) -> dict[str, Any]:
    """Return the definition of a run's checkpoint."""
    return dict(info.config["checkpoint_definitions"][checkpoint])


def _metric(name: str, own: Preset) -> Metric:
    found = (
        METRICS[named([name], comparable_metrics(), "metric")[0]] if name else distance_metric(own.protocol)
    )
    if found is None:
        raise InputError(f"the run's protocol {own.name} has no distance; name a metric with metric=NAME")
    return found


def _images(
    store: RunFolder,
    info: RunInfo,
    metric: Metric,
    own: Preset,
    checkpoints: Sequence[str],
    scales: Sequence[float],
) -> tuple[list[CellImages], list[str]]:
    """Return the images of the chosen cells, and which checkpoints are left out because they are not done."""
    names = named(checkpoints, evaluate.checkpoint_names(info), "checkpoint")
    have = list(info.config["guidance_scales"])
    for scale in scales:
        if scale not in have:
            raise InputError(f"scales={scale:g}: not in the run ({', '.join(f'{one:g}' for one in have)})")
    chosen = [scale for scale in have if not scales or scale in scales]
    done = [name for name in names if evaluate.complete(store, info, name)]
    if not done:
        raise InputError(f"{store.path}: no checkpoint is complete; run the sweep again to continue")
    sides = {name: png_side(own, definition(info, name)) for name in done}
    images = [image for name in done for image in images_of(store, info, name, chosen, sides[name])]
    for image in images:
        if len(image.pngs) < metric.smallest:
            raise InputError(
                f"{image.cell.key}: {metric.name} needs at least {metric.smallest} valid images, "
                f"there are {len(image.pngs)}"
            )
    return images, [f"{name} is left out: not complete yet" for name in names if name not in done]


def _values(scored: Scored, metric: Metric) -> list[Value]:
    first = scored.estimates[scored.presets[0].name]
    rows = []
    for place, image in enumerate(scored.images):
        groups = scored.groups[image.valid]
        for preset in scored.presets:
            estimate = scored.estimates[preset.name][place]
            moved = difference(estimate, first[place], groups)
            row = Value(
                checkpoint=image.cell.checkpoint,
                guidance_scale=image.cell.guidance_scale,
                protocol=preset.name,
                metric=metric.name,
                value=estimate.value,
                stderr=standard_error(estimate.influence, groups),
                n=estimate.n,
                difference=moved.value,
                difference_stderr=moved.stderr,
            )
            rows.append(row)
    return rows


def _shifts(scored: Scored, own: Preset, drew: Definitions) -> list[Shift]:
    used = scored.valid
    groups = scored.groups[used.any(axis=0)]
    first = scored.estimates[scored.presets[0].name]
    before = average(first, used)
    rows: list[Shift] = []
    values: dict[tuple[float, ...], str] = {}
    for preset in scored.presets:
        estimates = scored.estimates[preset.name]
        mean = difference(average(estimates, used), before, groups)
        moved = [here.value - there.value for here, there in zip(estimates, first, strict=True)]
        most = int(np.abs(moved).argmax())
        earlier = values.setdefault(tuple(estimate.value for estimate in estimates), preset.name)
        weights, reference = scored.digests[preset.name]
        row = Shift(
            protocol=preset.name,
            differs=differs(preset, own),
            not_varied=not_varied(preset, own, drew),
            mean=mean.value,
            mean_stderr=mean.stderr,
            largest=moved[most],
            largest_checkpoint=scored.cells[most].checkpoint,
            largest_scale=scored.cells[most].guidance_scale,
            same_as="" if earlier == preset.name else earlier,
            weights=weights,
            reference=reference,
        )
        rows.append(row)
    return rows


def _spreads(scored: Scored) -> list[Spread]:
    names = [preset.name for preset in scored.presets]
    rows = []
    for place, image in enumerate(scored.images):
        estimates = [scored.estimates[name][place] for name in names]
        values = [estimate.value for estimate in estimates]
        low, high = int(np.argmin(values)), int(np.argmax(values))
        row = Spread(
            checkpoint=image.cell.checkpoint,
            guidance_scale=image.cell.guidance_scale,
            value=values[0],
            stderr=standard_error(estimates[0].influence, scored.groups[image.valid]),
            lowest=values[low],
            lowest_protocol=names[low],
            highest=values[high],
            highest_protocol=names[high],
        )
        rows.append(row)
    return rows


def _ranks(scored: Scored, metric: Metric) -> Any:
    values, stderrs = {}, {}
    for name, estimates in scored.estimates.items():
        values[name] = np.array([estimate.value for estimate in estimates])
        stderrs[name] = np.array(
            [
                standard_error(estimate.influence, scored.groups[image.valid])
                for estimate, image in zip(estimates, scored.images, strict=True)
            ]
        )
    return rank(scored.cells, values, stderrs, lower_is_better=metric.direction == "lower")


def _agreement(store: RunFolder, scored: Scored, metric: Metric) -> Agreement:
    """Compare the run's own protocol with the run's own results."""
    none = Agreement(compared=0, largest=0.0, checkpoint="", guidance_scale=0.0)
    run = report.read_run(store.path) if scored.presets[0].own else None
    if run is None:
        return none
    own = run.results[run.results["metric"] == metric.name]
    cells = zip(own["checkpoint"], own["guidance_scale"].astype(float), strict=True)
    recorded = dict(zip(cells, own["value"].astype(float), strict=True))
    found = []
    for cell, estimate in zip(scored.cells, scored.estimates[scored.presets[0].name], strict=True):
        key = (cell.checkpoint, cell.guidance_scale)
        if key in recorded:
            there = recorded[key]
            found.append((abs(estimate.value - there) / max(abs(there), 1e-300), *key))
    if not found:
        return none
    largest, checkpoint, scale = max(found)
    return Agreement(compared=len(found), largest=largest, checkpoint=checkpoint, guidance_scale=scale)
