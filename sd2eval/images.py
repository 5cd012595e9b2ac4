"""uint8 images: read, make square, quantise, write, digest.

Everywhere in sd2eval an image is uint8 [H,W,3], RGB, 0..255, rows from the top; a batch is [N,H,W,3].
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sd2eval.config import ProtocolConfig
from sd2eval.errors import InputError

Pixels = npt.NDArray[np.uint8]
Filter = Literal["bicubic", "lanczos", "bilinear", "bicubic_aliased", "bilinear_aliased"]
Fit = Literal["crop", "squash", "none"]

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}
FORMATS = ("JPEG", "PNG", "WEBP")
COMPRESSION = 1
"""zlib level: a 512-pixel photograph takes 27 ms and 438 kB; level 6 takes 109 ms and 400 kB."""
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow would clip these at 255 instead of scaling them."""


def load_rgb(path: Path) -> Pixels:
    """Read a JPEG, PNG or WebP file as uint8 [H,W,3].

    Grey, palette and CMYK images are converted; transparency is dropped. The EXIF orientation is ignored, as
    the COCO tools do: COCO's boxes and masks refer to the stored rows and columns.

    Raises:
        InputError: The file is missing, not such an image, damaged or not whole, or deeper than 8 bits.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the image: {error.strerror or error}") from error
    if not raw:
        raise InputError(f"{path}: is empty")
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            if not _has_end(raw, image.format):
                raise InputError(f"{path}: the image is cut off: its end marker is missing")
            if image.mode in DEEP_MODES:
                raise InputError(f"{path}: the image has more than 8 bits per channel")
            # Straight to RGB, Pillow warns about palettes with transparency.
            whole = image.convert("RGBA") if image.mode == "P" else image
            return np.asarray(whole.convert("RGB"))
    except InputError:
        raise
    except UnidentifiedImageError:  # its message names an address in memory
        raise InputError(f"{path}: is no {', '.join(FORMATS)} image") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = str(error).replace("\n", " ").replace("<_io.BytesIO object", "<file") or type(error).__name__
        raise InputError(f"{path}: not a readable {', '.join(FORMATS)} image: {reason}") from error


def square(image: Pixels, size: int, filter: Filter = "bicubic", fit: Fit = "crop") -> Pixels:
    """Resize to uint8 [size,size,3] with one of Pillow's filters on uint8: a protocol choice.

    A filter widens with the reduction (antialiasing), as Pillow's do; `*_aliased` reads as few pixels at any
    size, as OpenCV's and PyTorch's `interpolate` do by default.

    `crop`: the short side becomes `size`, the long side floor(size * long / short), then the centre is cut
    out. Of d surplus pixels the left (or upper) side loses round(d/2), halves to even: 0 of 1, 2 of 3. That
    is exactly torchvision's `Resize(size)` and `CenterCrop(size)`.
    `squash`: both sides become `size`; nothing is cut off, proportions are lost.
    `none`: the image stays as it is, and the extractor's own preprocessing squashes it.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    height, width = _checked(image).shape[:2]
    if fit == "none":
        return image
    short = min(height, width)
    shape = (size, size) if fit == "squash" else (size * width // short, size * height // short)
    resized = _resized(image, shape, filter)
    top, left = (round((side - size) / 2) for side in resized.shape[:2])
    return np.ascontiguousarray(resized[top : top + size, left : left + size])


def _resized(image: Pixels, shape: tuple[int, int], filter: Filter) -> Pixels:
    """Resize to (width, height)."""
    source = Image.fromarray(image)
    name, _, aliased = filter.partition("_")
    if not aliased:
        return np.asarray(source.resize(shape, FILTERS[name]))
    across, down = source.width / shape[0], source.height / shape[1]
    matrix = (across, 0.0, 0.0, 0.0, down, 0.0)  # pixel centres are mapped on each other
    return np.asarray(source.transform(shape, Image.Transform.AFFINE, matrix, FILTERS[name]))


def for_protocol(image: Pixels, protocol: ProtocolConfig) -> Pixels:
    """Return the image as the protocol's extractors see it, real or generated: one geometry for both."""
    return square(image, protocol.resolution, protocol.resize, protocol.fit)  # type: ignore[arg-type]


def as_reference(image: Pixels, protocol: ProtocolConfig) -> Pixels:
    """Return a real image as the protocol's extractors see it, through JPEG where the protocol says so."""
    shown = for_protocol(image, protocol)
    if protocol.reference_jpeg is None:
        return shown
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, format="JPEG", quality=protocol.reference_jpeg)
    with Image.open(buffer) as image_file:
        return np.asarray(image_file.convert("RGB"))


def to_uint8(
    array: npt.NDArray[np.floating[Any]],
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    mode: Literal["round", "truncate"] = "round",
) -> Pixels:
    """Quantise decoded images, float [N,3,H,W] or [N,H,W,3] in [-1,1], to uint8 [N,H,W,3].

    Values outside the range are clipped. `round` is numpy's `rint`; the one value that lies exactly between
    two levels is 0.0, and it becomes 128. `truncate` is the cast of the original `txt2img.py`, which darkens
    by half a level on average.

    Raises:
        ValueError: The shape is not that of `layout`, or a value is not finite (it would silently become
            black); names the images.
    """
    channels = 1 if layout == "NCHW" else 3
    if array.ndim != 4 or array.shape[channels] != 3:
        raise ValueError(f"expected {layout} with 3 channels, got shape {array.shape}")
    finite = np.isfinite(array).all(axis=(1, 2, 3))
    if not finite.all():
        raise ValueError(f"images {np.flatnonzero(~finite).tolist()} of the batch have non-finite values")
    wide = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
    if layout == "NCHW":
        wide = wide.transpose(0, 2, 3, 1)
    levels = 255 * np.clip((wide + 1) / 2, 0, 1)
    return np.ascontiguousarray((np.rint(levels) if mode == "round" else levels).astype(np.uint8))


def write_png(path: Path, image: Pixels, *, fsync: bool = False) -> None:
    """Write uint8 [H,W,3] as PNG: under a temporary name beside `path`, then published in one step.

    The bytes depend only on the pixels and the Pillow build: no time, no text chunks. With `fsync` they are
    on the disk before the name appears.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            Image.fromarray(_checked(image)).save(stream, format="PNG", compress_level=COMPRESSION)
            stream.flush()
            if fsync:
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(image: Pixels) -> str:
    """Return the SHA-256 (hex) of the raw bytes of uint8 [H,W,3]: height x width x RGB, row-major."""
    return hashlib.sha256(np.ascontiguousarray(_checked(image)).tobytes()).hexdigest()


def _checked(image: Pixels) -> Pixels:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"expected uint8 [H,W,3], got {image.dtype} {image.shape}")
    return image


def _has_end(raw: bytes, file_format: str | None) -> bool:
    """Say whether the last marker of the file is there; Pillow opens files that have lost it."""
    if file_format == "PNG":
        return b"IEND\xaeB`\x82" in raw
    if file_format == "WEBP":
        return True  # its header holds the length, which the decoder checks
    # JPEG: an end-of-image after the last start-of-scan; a thumbnail in the header has its own pair.
    return raw.rfind(b"\xff\xd9") > raw.rfind(b"\xff\xda")
