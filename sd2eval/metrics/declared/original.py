"""Metrics that compare each image with the caption's own: measured when it is drawn, one number per image."""

from __future__ import annotations

from dataclasses import replace

from sd2eval.metrics.claims import claim
from sd2eval.metrics.metric import Metric
from sd2eval.metrics.paired import mean_of_images

_PSNR = Metric(
    name="psnr",
    label="PSNR",
    describes="Peak signal-to-noise ratio of the image against the caption's own.",
    direction="higher",
    unit="dB",
    kind="paired",
    applies_to=("inpainting", "upscaling"),
    claim=claim("mean_of_images"),
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
    extractor="perceptual",
    needs=("lpips_alex",),
)
_LPIPS_MINI = replace(
    _LPIPS,
    name="lpips_mini",
    label="LPIPS (mini)",
    describes="Perceptual distance of the image and the caption's own in the mini classifier's layers.",
    needs=("mini_lpips",),
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
_DEPTH = replace(
    _PSNR,
    name="depth_agreement",
    label="depth agreement",
    describes="Mean correlation of the depth seen in the image with the depth that it was drawn from.",
    unit="correlation",
    applies_to=("depth",),
    part="depth",
)
_DEPTH_MINI = replace(
    _DEPTH,
    name="depth_agreement_mini",
    label="depth agreement (mini)",
    describes="The same, with the mini world's depth estimator.",
    mini=True,
)
METRICS = (*_WHOLE, *_MASKED, _DEPTH, _DEPTH_MINI)
