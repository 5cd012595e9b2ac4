"""The card: "The autoencoding part of the model is lossy".

Real images go through each checkpoint's autoencoder and back. How far they are from themselves then is the
floor under every distance of a sweep: no picture can be drawn that the decoder does not make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval import paired
from sd2eval.checkpoints import Checkpoint
from sd2eval.checkpoints.conditioning import network_batch, to_signed
from sd2eval.config import CheckpointConfig, ProtocolConfig
from sd2eval.errors import InputError
from sd2eval.images import for_protocol, load_rgb, square, to_uint8
from sd2eval.metrics.frechet import frechet_distance, frechet_reference, gaussian
from sd2eval.metrics.paired import mean_of_images
from sd2eval.probes.base import (
    NO_PROMPTS,
    Answer,
    Bench,
    Direction,
    Images,
    Probe,
    PromptSet,
    Row,
    Tile,
    Unavailable,
    label,
)
from sd2eval.probes.means import mean_interval
from sd2eval.probes.named_metrics import of_family
from sd2eval.probes.regions import Instances, as_shown, parts_of
from sd2eval.statistics import interval, standard_error

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]

CHUNK = 64
"""Images in memory at a time."""
BLOCKS = 40
"""Of the jackknife; each costs a distance."""
TILES = 6
LEAST = 2
"""Images with a part, below which nothing is said of it."""


def prompts(bench: Bench) -> PromptSet:
    """Return nothing: the images are real ones."""
    return NO_PROMPTS


@dataclass
class Collected:
    """What is kept of all images: one number per image and metric, and the features of both sides."""

    perceptual: str
    """What the metric of the perceptual network is called."""
    values: dict[tuple[str, str], list[Values]] = field(default_factory=dict)
    """By (part, metric)."""
    features: list[NDArray[np.float32]] = field(default_factory=list)
    originals: list[NDArray[np.float32]] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)


def there_and_back(checkpoint: Checkpoint, squares: Images, quantize: str = "round") -> Images:
    """Encode uint8 [N, S, S, 3] and decode again: the mode of the posterior, so that no noise is in it.

    Raises:
        InputError: the decoder gives NaN or infinity.
    """
    size = network_batch(checkpoint.definition.resolution)
    chunks = [squares[start : start + size] for start in range(0, len(squares), size)]
    return np.concatenate([_one_batch(checkpoint, chunk, quantize) for chunk in chunks])


@torch.inference_mode()
def _one_batch(checkpoint: Checkpoint, squares: Images, quantize: str) -> Images:
    vae = checkpoint.vae
    signed = to_signed(squares).to(vae.device, vae.dtype)
    latents = vae.encode(signed).latent_dist.mode() * vae.config.scaling_factor
    decoded = checkpoint.decode(latents).cpu().numpy()
    if not np.isfinite(decoded).all():
        raise InputError(f"{checkpoint.definition.name}: its autoencoder gives NaN or infinity")
    return to_uint8(decoded, mode=quantize)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Floor:
    """A distance of reconstructions to their own originals."""

    value: float
    """Without the bias that the number of images leaves in."""
    plain: float
    """As distances are usually given."""
    stderr: float
    dof: int


def paired_frechet(
    features: NDArray[np.float32], originals: NDArray[np.float32], blocks: int = BLOCKS
) -> Floor:
    """Return the Frechet distance of reconstructions to their own originals, features [n, d] each.

    Both sides vary together, and nearly cancel: leaving an image out on one side only would say nothing. So
    blocks of pairs are left out (delete-a-group jackknife, Kott 2001): with G blocks, the standard error is
    sqrt((G - 1) / G * sum of (value without block g - their mean)^2), with G - 1 degrees of freedom, and the
    value is G times the plain one less G - 1 times the mean without a block, which has no bias of order 1 /
    n.
    """
    n = len(features)
    count = min(blocks, n)
    block = np.arange(n) % count
    without = np.array([_frechet(features[block != g], originals[block != g]) for g in range(count)])
    spread = float(np.square(without - without.mean()).sum())
    plain = _frechet(features, originals)
    value = max(count * plain - (count - 1) * float(without.mean()), 0.0)
    return Floor(value, plain, float(np.sqrt((count - 1) / count * spread)), count - 1)


def _frechet(features: NDArray[np.float32], originals: NDArray[np.float32]) -> float:
    return frechet_distance(features, frechet_reference(gaussian(originals))).value


def measure(bench: Bench, checkpoint: CheckpointConfig) -> Answer:
    """Send real images through the checkpoint's autoencoder and compare."""
    distance, perceptual = (of_family(bench, role).name for role in ("distance", "perceptual"))
    files = bench.dataset.reference[: int(bench.settings["n"])]
    if len(files) < LEAST:
        raise Unavailable(f"at least {LEAST} real images are needed, there are {len(files)}")
    instances = Instances(bench.annotations("instances"))
    loaded, found = bench.load(checkpoint), Collected(perceptual)
    for start in range(0, len(files), CHUNK):
        bench.progress(f"{start} of {len(files)} images")
        _chunk(bench, loaded, instances, files[start : start + CHUNK], found)
    rows = list(_rows(bench, found, f"r{distance}", len(files)))
    return Answer(rows=rows, sentences=_sentences(rows), tiles=found.tiles)


def _chunk(
    bench: Bench, loaded: Checkpoint, instances: Instances, files: Sequence[Path], found: Collected
) -> None:
    protocol, size = bench.protocol, loaded.definition.resolution
    squares = np.stack([square(load_rgb(file), size) for file in files])
    originals = _shown(squares, protocol)
    images = _shown(there_and_back(loaded, squares, protocol.quantize), protocol)
    found.features.append(bench.features("distance", images))
    found.originals.append(bench.features("distance", originals))
    _compare(bench, "", images, originals, None, found)
    for part, (places, masks) in _masks(bench, instances, files, size).items():
        pasted = np.where(masks[..., None], images[places], originals[places])
        _compare(bench, part, pasted, originals[places], masks, found)
    for place in range(min(len(files), TILES - len(found.tiles) // 2)):
        one = f"{found.values['', 'psnr'][-1][place]:.1f} dB"
        found.tiles.append(Tile(image=originals[place], text=files[place].name, found="original"))
        found.tiles.append(Tile(image=images[place], text=files[place].name, found=f"there and back, {one}"))


def _shown(squares: Images, protocol: ProtocolConfig) -> Images:
    return np.stack([for_protocol(one, protocol) for one in squares])


def _masks(
    bench: Bench, instances: Instances, files: Sequence[Path], size: int
) -> dict[str, tuple[NDArray[np.intp], Masks]]:
    """Return, by part, which of the images have it, and their masks."""
    places: dict[str, list[int]] = {}
    masks: dict[str, list[Masks]] = {}
    for place, file in enumerate(files):
        own = parts_of(instances, file.name, bench.settings["parts"], float(bench.settings["small_area"]))
        for part, mask in own.items():
            shown = as_shown(mask, size, bench.protocol)
            if shown.any():  # else it was cut off, or has less than a pixel
                places.setdefault(part, []).append(place)
                masks.setdefault(part, []).append(shown)
    return {part: (np.array(places[part]), np.stack(masks[part])) for part in places}


def _compare(
    bench: Bench, part: str, images: Images, originals: Images, masks: Masks | None, found: Collected
) -> None:
    """Compare by PSNR, SSIM and the protocol's perceptual network; inside a mask the rest is the original."""
    distances: Callable[..., NDArray[np.float32]] | None = bench.extractor("perceptual").distances
    assert distances is not None
    ours = {
        "psnr": paired.psnr(images, originals, masks),
        "ssim": paired.ssim(images, originals, masks, bench.device),
        found.perceptual: distances(images, originals, masks).astype(np.float64),
    }
    for metric, values in ours.items():
        found.values.setdefault((part, metric), []).append(values)


UNITS: dict[str, tuple[Direction, str]] = {"psnr": ("higher", "dB"), "ssim": ("higher", "similarity")}


def _rows(bench: Bench, found: Collected, name: str, count: int) -> Iterator[Row]:
    """Yield the floor, which has that name, and then the means over images."""
    distance, perceptual = bench.extractor("distance"), bench.extractor("perceptual")
    floor = paired_frechet(np.concatenate(found.features), np.concatenate(found.originals))
    ends = interval(floor.value, floor.stderr, dof=floor.dof)
    yield Row(
        metric=name,
        value=floor.value,
        stderr=floor.stderr,
        low=max(ends.low, 0.0),
        high=ends.high,
        n=count,
        direction="lower",
        unit="squared feature distance",
        component=label(distance),
        note="reconstructions against their own originals: the floor under every such distance of a sweep; "
        f"jackknifed, plain {floor.plain:.4g}",
    )
    for (part, metric), chunks in found.values.items():
        by = label(perceptual) if metric == found.perceptual else ""
        yield _mean_row(part, metric, np.concatenate(chunks), by, count)


def _mean_row(part: str, metric: str, values: Values, component: str, count: int) -> Row:
    """Return the mean over images; NaN where hardly any has the part."""
    direction, unit = UNITS.get(metric, ("lower", "distance"))
    few = len(values) < LEAST
    mean = stderr = low = high = float("nan")
    if not few:
        estimate = mean_of_images(values)
        mean, stderr = estimate.value, standard_error(estimate.influence)
        low, high = mean_interval(estimate)
    inside = f"{'only ' * few}{len(values)} of {count} images have it; inside masks"
    return Row(
        part=part,
        metric=metric,
        value=mean,
        stderr=stderr,
        low=low,
        high=high,
        n=len(values),
        direction=direction,
        unit=unit,
        component=component,
        note=inside if part else "",
    )


def _sentences(rows: Sequence[Row]) -> list[str]:
    floor, psnr = rows[0], next(row for row in rows if (row.part, row.metric) == ("", "psnr"))
    sentences = [
        f"Real images that only went through the autoencoder are {_told(floor)} from themselves "
        f"({floor.metric}, n = {floor.n}): the floor under every such distance of a sweep. They have "
        f"{_told(psnr)} dB.",
    ]
    parts = [row for row in rows if row.metric == "psnr" and row.part and np.isfinite(row.value)]
    if parts:
        inside = "; ".join(f"{row.part} {_told(row)} dB (n = {row.n})" for row in parts)
        sentences.append(f"Inside masks: {inside}.")
    return sentences


def _told(row: Row) -> str:
    return f"{row.value:.3g} ({row.low:.3g} to {row.high:.3g})"


PROBE = Probe(
    name="autoencoder",
    sentence="The autoencoding part of the model is lossy.",
    question="How much of a real image is lost in the autoencoder alone, and where?",
    prompts=prompts,
    measure=measure,
    draws=False,
)
