"""The metrics by name; a metric's direction, unit and label are declared here and nowhere else.

Adding one: a pure function of arrays that returns an `Estimate`, and an entry of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import ArrayLike

from sd2eval.metrics._reference import Reference
from sd2eval.metrics.frechet import frechet_distance
from sd2eval.metrics.kernel import kernel_distance
from sd2eval.metrics.paired import mean_of_images
from sd2eval.metrics.similarity import mean_cosine
from sd2eval.records import Direction
from sd2eval.statistics import Estimate

MINI_WEIGHTS = "package:mini/weights"
"""Where a checkpoint's source lies in the embedded family."""

Kind = Literal["distance", "kernel", "score", "paired"]
Part = Literal["image", "mask", "depth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric is called, how to read it, and how to compute it."""

    name: str
    """Key in `METRICS` and in results; `fid`, `kid`, `clip_score` always mean the real extractors."""
    label: str
    """Name for axes and table heads."""
    describes: str
    """One sentence for people who meet the metric for the first time."""
    direction: Direction
    unit: str
    kind: Kind
    """Role in a study: `distance` is the plot's y axis, `score` its x axis, `kernel` an unbiased distance;
    `paired` compares each image with the caption's own and is in no plot."""
    extractor_role: Literal["distance", "score", "perceptual"] | None
    """Which of a protocol's networks it needs; None for a formula or the checkpoint's own network."""
    applies_to: tuple[str, ...] = ("text", "depth", "inpainting", "upscaling")
    """The kinds of conditioning for which it says something; elsewhere it has no row."""
    part: Part = "image"
    """What of the image a paired metric compares."""
    mini: bool
    """Computed with the extractors of the embedded mini world; not comparable with any published number."""
    factor: float = 1.0
    """Tables show value x factor, and say so; results always hold the plain value."""
    estimate: Callable[[Any, Any], Estimate]
    """Takes (features [n, d], `Reference`) in role `distance`, (image, text embeddings [n, d]) in `score`,
    (one value per image [n], None) for a paired one."""

    @property
    def array(self) -> str:
        """Name of the array in a shard that it is computed from: features, or its own values."""
        return self.name if self.kind == "paired" else str(self.extractor_role)


def _frechet(features: ArrayLike, reference: Reference) -> Estimate:
    return frechet_distance(features, reference.frechet)


def _kernel(features: ArrayLike, reference: Reference) -> Estimate:
    return kernel_distance(features, reference.kernel)


_FID = Metric(
    name="fid",
    label="FID",
    describes="Frechet distance between Inception-v3 features of generated and real images.",
    direction="lower",
    unit="squared feature distance",
    kind="distance",
    extractor_role="distance",
    mini=False,
    estimate=_frechet,
)
_KID = Metric(
    name="kid",
    label="KID",
    describes="Unbiased kernel distance between Inception-v3 features of generated and real images.",
    direction="lower",
    unit="squared MMD",
    kind="kernel",
    extractor_role="distance",
    mini=False,
    factor=1000.0,  # the field quotes KID in thousandths
    estimate=_kernel,
)
_CLIP_SCORE = Metric(
    name="clip_score",
    label="CLIP score",
    describes="Mean raw cosine of an image's and its caption's OpenCLIP embeddings.",
    direction="higher",
    unit="cosine",
    kind="score",
    extractor_role="score",
    mini=False,
    estimate=mean_cosine,
)
_MINI = (
    replace(
        _FID,
        name="fd_mini",
        label="FD (mini)",
        describes="Frechet distance between the mini classifier's features of generated and rendered scenes.",
        mini=True,
    ),
    replace(
        _KID,
        name="kid_mini",
        label="KD (mini)",
        describes="Unbiased kernel distance between the mini classifier's features of both sets of scenes.",
        mini=True,
    ),
    replace(
        _CLIP_SCORE,
        name="clip_mini",
        label="CLIP (mini)",
        describes="Mean raw cosine of an image's and its caption's embeddings in the mini CLIP.",
        mini=True,
    ),
)

_PSNR = Metric(
    name="psnr",
    label="PSNR",
    describes="Peak signal-to-noise ratio of the image against the caption's own.",
    direction="higher",
    unit="dB",
    kind="paired",
    extractor_role=None,
    applies_to=("inpainting", "upscaling"),
    mini=False,
    estimate=mean_of_images,
)
_SSIM = replace(
    _PSNR,
    name="ssim",
    label="SSIM",
    describes="Structural similarity of the image and the caption's own.",
    unit="similarity",
)
_LPIPS = replace(
    _PSNR,
    name="lpips",
    label="LPIPS",
    describes="Perceptual distance of the image and the caption's own in AlexNet's layers.",
    direction="lower",
    unit="perceptual distance",
    extractor_role="perceptual",
)
_LPIPS_MINI = replace(
    _LPIPS,
    name="lpips_mini",
    label="LPIPS (mini)",
    describes="Perceptual distance of the image and the caption's own in the mini classifier's layers.",
    mini=True,
)
_WHOLE = (_PSNR, _SSIM, _LPIPS, _LPIPS_MINI)
_MASKED = tuple(
    replace(
        metric,
        name=f"{metric.name}_mask",
        describes=f"{metric.describes.removesuffix('.')}, inside the painted mask.",
        applies_to=("inpainting",),
        part="mask",
    )
    for metric in _WHOLE
)
_DEPTH = Metric(
    name="depth_agreement",
    label="depth agreement",
    describes="Mean correlation of the depth seen in the image with the depth that it was drawn from.",
    direction="higher",
    unit="correlation",
    kind="paired",
    extractor_role=None,
    applies_to=("depth",),
    part="depth",
    mini=False,
    estimate=mean_of_images,
)
_DEPTH_MINI = replace(
    _DEPTH,
    name="depth_agreement_mini",
    label="depth agreement (mini)",
    describes="The same, with the mini world's depth estimator.",
    mini=True,
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (_FID, _KID, _CLIP_SCORE, *_MINI, *_WHOLE, *_MASKED, _DEPTH, _DEPTH_MINI)
}
"""Every metric by name, in the order of tables."""


def applicable(names: Sequence[str], definition: Mapping[str, Any]) -> list[Metric]:
    """Return those of a protocol's metrics that say something about a checkpoint's images, in their order.

    Depth agreement is measured with the checkpoint's own estimator, so its name follows the checkpoint: the
    mini world's estimator gives `depth_agreement_mini` and no other does.

    Args:
        names: keys of `METRICS`.
        definition: the checkpoint's, as in the config of `run.json`.
    """
    kind = definition.get("conditioning", "text")
    metrics = [METRICS[name] for name in names if kind in METRICS[name].applies_to]
    mini = _has_mini_estimator(definition)
    return [metric for metric in metrics if metric.part != "depth" or metric.mini == mini]


def _has_mini_estimator(definition: Mapping[str, Any]) -> bool:
    components = definition.get("components") or {}
    source = components.get("depth_estimator") or definition.get("source") or ""
    return str(source).startswith(MINI_WEIGHTS)
