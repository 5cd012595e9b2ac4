"""How each generated image compares with the caption's own image: one number per image and metric.

Inside a mask the generated image is pasted into the original first, as an inpainter is used, and only masked
pixels count: what lies outside the mask cannot change the number, and a mask of everything gives the unmasked
one. The original is the square that the checkpoint was shown, brought to the protocol's resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import pad

from sd2eval import masks as painted
from sd2eval.checkpoints import Checkpoint
from sd2eval.config import ProtocolConfig
from sd2eval.extractors.base import Extractor
from sd2eval.images import for_protocol
from sd2eval.memory import pieces
from sd2eval.metrics import Metric
from sd2eval.shard import Given, Pixels

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Values = NDArray[np.float64]

PEAK = 255.0
ROUNDING = 1 / 12
"""Variance of rounding to 8 bits, in levels: closer than this, two 8-bit images cannot be told to agree."""
WINDOW, SIGMA = 11, 1.5
"""SSIM's Gaussian window, in pixels."""
K1, K2 = 0.01, 0.03
"""SSIM's stabilisers."""
CHUNK_PIXELS = 4 * 512**2
"""Pixels compared at a time: SSIM holds some 30 float64 maps of them."""


@dataclass(frozen=True)
class Shown:
    """What the images of a shard are compared with."""

    originals: Images
    """uint8 [N, R, R, 3]"""
    masks: Masks | None
    """bool [N, R, R] of an inpainting checkpoint, True where it painted; None for the others."""
    depth: NDArray[np.float32] | None
    """[N, h, w] on the latent grid, what a depth checkpoint was drawn from; None for the others."""

    def of(self, piece: slice) -> Shown:
        """Return what some of the captions are compared with."""
        masks = None if self.masks is None else self.masks[piece]
        return Shown(self.originals[piece], masks, None if self.depth is None else self.depth[piece])


def psnr(images: Images, originals: Images, masks: Masks | None = None) -> Values:
    """Return the peak signal-to-noise ratio of each image in dB: 10 log10(255^2 / mean squared error).

    The mean goes over the pixels (the masked ones, if masks are given) and channels. It is taken as at least
    1/12, the error that rounding alone makes: identical images have 58.92 dB, not infinity, and no single
    image can carry a mean away.

    Args:
        images: uint8 [N, R, R, 3].
        originals: uint8 [N, R, R, 3].
        masks: bool [N, R, R], each with a True.

    Returns:
        float64 [N].
    """
    squares = np.square(images.astype(np.int32) - originals).mean(axis=3)
    error = _mean(squares, masks)
    decibel: Values = 10 * np.log10(PEAK**2 / np.maximum(error, ROUNDING))
    return decibel


def ssim(
    images: Images, originals: Images, masks: Masks | None = None, device: torch.device | str = "cpu"
) -> Values:
    """Return the structural similarity of each image, -1..1 (Wang et al. 2004), averaged over R, G and B.

    Window 11x11, Gaussian of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, variances without Bessel's correction,
    one value per pixel with the image mirrored at its edges, as torchmetrics does it; the authors' own code
    leaves out the pixels whose window does not fit. With masks the mean goes over the masked pixels of the
    same map. In float64, because float32 loses up to 1e-4 where an image is bright and flat.

    Args:
        images: uint8 [N, R, R, 3], R >= 6.
        originals: uint8 [N, R, R, 3].
        masks: bool [N, R, R], each with a True.
        device: where it is computed.

    Returns:
        float64 [N].
    """
    device = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)  # no float64
    size = max(1, CHUNK_PIXELS // images[0, ..., 0].size)
    maps = [
        _similarity(
            *(torch.from_numpy(part[start : start + size]).to(device) for part in (images, originals))
        )
        for start in range(0, len(images), size)
    ]
    return _mean(torch.cat(maps).cpu().numpy(), masks)


def _similarity(images: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
    """Return SSIM's map of uint8 [N, R, R, 3] as float64 [N, R, R], averaged over the channels."""
    x, y = (part.permute(0, 3, 1, 2).double() for part in (images, originals))
    blur = _blur(x.shape[-1]).to(x.device)
    mean_x, mean_y, xx, yy, xy = (blur @ part @ blur.T for part in (x, y, x * x, y * y, x * y))
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    product = mean_x * mean_y
    squares = mean_x.square() + mean_y.square()
    luminance = (2 * product + c1) / (squares + c1)
    structure = (2 * (xy - product) + c2) / (xx + yy - squares + c2)
    return (luminance * structure).mean(1)


def _blur(size: int) -> torch.Tensor:
    """Return the matrix [size, size] that convolves a column with the window, mirrored at the ends.

    As two matrix products the window costs a tenth of a two-dimensional convolution in float64.
    """
    reach = WINDOW // 2
    window = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * SIGMA**2))
    window /= window.sum()
    mirrored = pad(torch.eye(size, dtype=torch.float64)[None], (reach, reach), mode="reflect")[0]
    return torch.stack([weight * mirrored[:, i : i + size] for i, weight in enumerate(window)]).sum(0).T


def _mean(maps: Values, masks: Masks | None) -> Values:
    """Return the mean of each map [N, R, R], over its masked pixels if masks are given: float64 [N]."""
    whole: Values = np.ones_like(maps) if masks is None else masks.astype(np.float64)
    means: Values = (maps * whole).sum(axis=(1, 2)) / whole.sum(axis=(1, 2))
    return means


def correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> Values:
    """Return Pearson's correlation of each pair of maps [N, h, w] as float64 [N].

    A map without any contrast agrees with nothing: its correlation, 0/0, is taken as 0.
    """
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    a, b = (maps - maps.mean(axis=1, keepdims=True) for maps in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products: Values = (a * b).sum(axis=1)
    agreement: Values = np.divide(products, lengths, out=np.zeros(len(a)), where=lengths > 0)
    return agreement


def shown(
    checkpoint: Checkpoint, given: Given, caption_ids: Sequence[int], seed: int, protocol: ProtocolConfig
) -> Shown:
    """Return what a shard's images are compared with; the checkpoint is one that starts from an image."""
    assert given.squares is not None
    kind, size = checkpoint.definition.conditioning, checkpoint.definition.resolution
    originals = np.stack([for_protocol(square, protocol) for square in given.squares])
    masks = depth = None
    if kind == "inpainting":
        scored = originals.shape[1]
        masks = np.stack([resized(painted.mask(seed, caption, size), scored) for caption in caption_ids])
    if kind == "depth":
        assert given.conditioning.channels is not None
        depth = given.conditioning.channels[:, 0].float().cpu().numpy()
    return Shown(originals, masks, depth)


def resized(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Bring a mask to bool [size, size]: True where at least half of a pixel's area is.

    Of a mask so small that this is nowhere, the pixels with most of it are kept, so that none is ever empty.
    """
    if len(mask) == size:
        return mask
    area = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
    share = np.asarray(area)
    return share >= min(0.5, float(share.max()))


def measure(
    checkpoint: Checkpoint,
    shown: Shown,
    pixels: Pixels,
    metrics: Sequence[Metric],
    perceptual: Extractor | None,
    size: int,
) -> dict[str, NDArray[np.float32]]:
    """Return the values of paired metrics for every image of a shard.

    Args:
        checkpoint: what drew the images; its own estimator looks for their depth.
        shown: what they are compared with.
        pixels: the images.
        metrics: of kind `paired`, each applicable to the checkpoint.
        perceptual: the protocol's network; None where no metric needs it.
        size: images that are compared at a time, at most.

    Returns:
        By metric name float32 [N, S]; NaN for an invalid image.
    """
    captions, scales = pixels.valid.shape
    parts = [(piece, shown.of(piece)) for piece in pieces(captions, size)]
    values = {}
    for metric in metrics:
        found = np.empty(pixels.valid.shape)
        for column in range(scales):
            for piece, others in parts:
                images = pixels.images[piece, column]
                found[piece, column] = _compare(checkpoint, others, images, metric, perceptual)
        values[metric.name] = np.where(pixels.valid, found, np.nan).astype(np.float32)
    return values


def _compare(
    checkpoint: Checkpoint, shown: Shown, images: Images, metric: Metric, perceptual: Extractor | None
) -> NDArray[np.floating]:
    """Return one metric of uint8 [N, R, R, 3], one image per caption: [N]."""
    if metric.part == "depth":
        assert shown.depth is not None
        return correlation(depth_seen(checkpoint, images), shown.depth)
    masks = shown.masks if metric.part == "mask" else None
    pasted = images if masks is None else np.where(masks[..., None], images, shown.originals)
    if metric.extractor is not None:
        assert perceptual is not None
        assert perceptual.distances is not None
        return perceptual.distances(pasted, shown.originals, masks)
    if metric.name.startswith("ssim"):
        return ssim(pasted, shown.originals, masks, checkpoint.unet.device)
    return psnr(pasted, shown.originals, masks)


def depth_seen(checkpoint: Checkpoint, images: Images) -> NDArray[np.float32]:
    """Return the depth [N, h, w] that the checkpoint's own estimator sees in uint8 [N, R, R, 3]."""
    assert checkpoint.adapter is not None
    channels = checkpoint.adapter(
        images, range(len(images)), 0
    ).channels  # no noise is in it: no caption, no seed
    assert channels is not None
    return channels[:, 0].float().cpu().numpy()
