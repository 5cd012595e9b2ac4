"""Every cell of a run under every protocol: one estimate each, with the influence of each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sd2eval.config import DataConfig, PromptsConfig
from sd2eval.dataset import Dataset, load_dataset
from sd2eval.devices import resolve_device
from sd2eval.errors import InputError, resumable
from sd2eval.extractors.base import Extractor
from sd2eval.matrix import features
from sd2eval.matrix.candidates import Candidates
from sd2eval.matrix.pngs import CellImages
from sd2eval.matrix.presets import ROLE, Preset
from sd2eval.matrix.result import grouped
from sd2eval.metrics import Metric, Reference
from sd2eval.plan import Cell
from sd2eval.records import RunInfo
from sd2eval.statistics import Estimate
from sd2eval.store import RunFolder

Say = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class Scored:
    """Every cell under every protocol that could be computed."""

    presets: list[Preset]
    images: list[CellImages]
    """By cell."""
    groups: NDArray[np.int64]
    """[n]; image id of each caption of the run."""
    estimates: dict[str, list[Estimate]]
    """By preset, one per cell."""
    digests: dict[str, tuple[str, str]]
    """By preset: of its network's weights, and of all that its real images' features depend on."""
    left_out: dict[str, str]
    """By protocol the reason."""

    @property
    def cells(self) -> list[Cell]:
        """The cells in their order."""
        return [image.cell for image in self.images]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which captions have a valid image, [cells, n]."""
        return np.stack([image.valid for image in self.images])


def score(
    store: RunFolder,
    info: RunInfo,
    candidates: Candidates,
    images: list[CellImages],
    metric: Metric,
    data_root: str | None,
    device: str,
    on_step: Say,
) -> Scored:
    """Compute the metric of every cell under every candidate.

    Args:
        store: the run.
        info: its record.
        candidates: the protocols.
        images: by cell.
        metric: what is computed.
        data_root: folder of the data set; None takes the run's.
        device: as of a sweep.
        on_step: called with what is being done.

    Raises:
        InputError: no protocol can be computed, the data set is another, or an image is missing or changed.
        Stopped: it was interrupted.
    """
    where = resolve_device(device)
    dataset = real_images(store, info, metric, data_root)
    on_step("loading the networks")
    networks, reasons = features.load_networks(candidates.presets, where)
    for preset in candidates.presets:
        if preset.own and preset.name in networks:
            reasons |= _others_weights(info, preset, networks)
    left_out = candidates.left_out | reasons
    presets = [preset for preset in candidates.presets if preset.name not in left_out]
    if not presets:
        raise InputError(f"no protocol can be computed on this run ({'; '.join(grouped(left_out))})")
    groups = np.array([prompt["image_id"] for prompt in store.read_prompts()], dtype=np.int64)
    with resumable():
        real = features.real_features(dataset, presets, networks, _counted("real images", on_step))
        estimates = _estimates(presets, networks, real, images, metric, on_step)
    digests = {preset.name: (networks[preset.name].digest, real[preset.name][0]) for preset in presets}
    return Scored(presets, images, groups, estimates, digests, left_out)


def real_images(store: RunFolder, info: RunInfo, metric: Metric, data_root: str | None) -> Dataset:
    """Return the data set that a run compares with.

    Raises:
        InputError: it is not there, or is another one.
    """
    record = info.config["data"] | ({"root": data_root} if data_root else {})
    data = DataConfig(**{field.name: record[field.name] for field in fields(DataConfig)})
    known = {field.name: info.config["prompts"].get(field.name) for field in fields(PromptsConfig)}
    wanted = PromptsConfig(**known | {"n": len(store.read_prompts())})
    try:
        dataset = load_dataset(data, wanted, [])
    except InputError as error:
        hint = "" if data_root else "; data.root=DIR says where the run's data set is on this machine"
        raise InputError(f"{error}{hint}") from error
    count = len(dataset.reference)
    if dataset.captions_digest != info.digests["data/captions"]:
        raise InputError(f"data.root={data.root}: {data.captions} is another file than the run's")
    if count != info.reference_n:
        raise InputError(
            f"data.root={data.root}: has {count} real images, the run compared with {info.reference_n}"
        )
    if count < metric.smallest_reference:
        raise InputError(
            f"{metric.name} needs at least {metric.smallest_reference} real images, there are {count}"
        )
    return dataset


def _others_weights(info: RunInfo, own: Preset, networks: Mapping[str, Extractor]) -> dict[str, str]:
    """Return the reason against the run's own protocol where its network's weights are not the run's."""
    recorded = info.digests.get(f"extractor/{ROLE}")
    here = networks[own.name].digest
    if recorded in (None, here):
        return {}
    return {own.name: f"its network's weights are others here ({here[:8]}) than in the run ({recorded[:8]})"}


def _estimates(
    presets: Sequence[Preset],
    networks: Mapping[str, Extractor],
    real: Mapping[str, tuple[str, features.Features]],
    images: Sequence[CellImages],
    metric: Metric,
    on_step: Say,
) -> dict[str, list[Estimate]]:
    """Return one estimate per cell by preset; two that see the same on both sides share it."""
    references = {key: Reference(array) for key, array in dict(real.values()).items()}
    found: dict[str, list[Estimate]] = {preset.name: [] for preset in presets}
    for image in images:
        looks = {p.name: features.look(p.protocol, networks[p.name], image.side) for p in presets}
        seen = features.cell_features(image, list(looks.values()), _counted(image.cell.key, on_step))
        shared: dict[tuple[str, str], Estimate] = {}
        for preset in presets:
            key = looks[preset.name].key, real[preset.name][0]
            if key not in shared:
                shared[key] = metric.estimate(seen[key[0]], references[key[1]])
            found[preset.name].append(shared[key])
    return found


def _counted(what: str, on_step: Say) -> Callable[[int], None]:
    """Return a function that says how many images of something are done."""
    done = 0

    def on_images(count: int) -> None:
        nonlocal done
        done += count
        on_step(f"{what}: {done:,} images")

    return on_images
