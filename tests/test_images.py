from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sd2eval.errors import InputError
from sd2eval.images import Pixels, digest, load_rgb, square, to_uint8, write_png

REAL = Path(__file__).resolve().parents[2] / "shared" / "coco" / "val2017"


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=file_format, **options)
    return stream.getvalue()


def load(folder: Path, raw: bytes) -> Pixels:
    path = folder / "image"
    path.write_bytes(raw)
    return load_rgb(path)


def test_load_png_is_exact(tmp_path: Path) -> None:
    image = noise(5, 7)
    loaded = load(tmp_path, encoded(Image.fromarray(image), "PNG"))
    assert loaded.dtype == np.uint8
    assert np.array_equal(loaded, image)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_load_converts_to_rgb(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(noise(6, 4)).convert(mode)
    expected = np.asarray(source.convert("RGB"))
    assert np.array_equal(load(tmp_path, encoded(source, "PNG")), expected)


def test_load_palette_with_transparency_does_not_warn(tmp_path: Path) -> None:
    source = Image.fromarray(noise(6, 4)).convert("P")
    loaded = load(tmp_path, encoded(source, "PNG", transparency=bytes(range(256))))
    assert np.array_equal(loaded, np.asarray(source.convert("RGB")))


def test_load_cmyk_jpeg(tmp_path: Path) -> None:
    source = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    assert np.abs(load(tmp_path, encoded(source, "JPEG")).astype(int) - [255, 0, 0]).max() <= 3


def test_load_ignores_exif_orientation(tmp_path: Path) -> None:
    image, exif = noise(5, 7), Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert np.array_equal(load(tmp_path, encoded(Image.fromarray(image), "PNG", exif=exif)), image)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_every_shortened_file_is_refused(tmp_path: Path, file_format: str) -> None:
    source = Image.fromarray(square(noise(3, 3), 12))
    thumbnail = Image.Exif()
    raw = encoded(source, file_format, exif=thumbnail)
    assert load(tmp_path, raw).shape == (12, 12, 3)
    for length in range(len(raw)):
        with pytest.raises(InputError) as caught:
            load(tmp_path, raw[:length])
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_jpeg_end_of_its_thumbnail_is_not_its_end(tmp_path: Path) -> None:
    """A JPEG that holds a whole JPEG in its header, as cameras write, and has lost its own last two bytes."""
    inner = encoded(Image.fromarray(noise(8, 8)), "JPEG")
    raw = encoded(Image.fromarray(noise(16, 16)), "JPEG")
    segment = b"\xff\xe2" + (len(inner) + 2).to_bytes(2, "big") + inner
    whole = raw[:2] + segment + raw[2:]
    assert load(tmp_path, whole + b"trailing bytes").shape == (16, 16, 3)
    with pytest.raises(InputError, match="cut off"):
        load(tmp_path, whole[:-2])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", ": is empty"),
        (b"<html>404</html>", ": is no JPEG, PNG, WEBP image"),
        (encoded(Image.fromarray(noise(4, 4)), "BMP"), "is no JPEG, PNG, WEBP image"),
        (encoded(Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)), "PNG"), "more than 8 bits"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, raw)


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jpg: cannot read the image: No such file"):
        load_rgb(tmp_path / "absent.jpg")


@pytest.mark.skipif(not REAL.is_dir(), reason="the COCO files are not in ../shared/coco")
def test_real_photographs_load() -> None:
    files = sorted(REAL.glob("*.jpg"))
    assert len(files) == 79
    assert all(load_rgb(path).ndim == 3 for path in files)


@pytest.mark.parametrize(("width", "left"), [(16, 0), (17, 0), (18, 1), (19, 2), (20, 2), (21, 2), (23, 4)])
def test_crop_convention(width: int, left: int) -> None:
    """With the short side at its size already nothing is resampled and the crop shows itself."""
    image = noise(16, width)
    assert np.array_equal(square(image, 16), image[:, left : left + 16])
    assert np.array_equal(square(image.swapaxes(0, 1), 16), image[:, left : left + 16].swapaxes(0, 1))


@pytest.mark.parametrize("name", ["bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (33, 33), (9, 13)])
def test_square_equals_torchvision(name: Any, shape: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image, size = noise(*shape), 17
    mode = transforms.InterpolationMode(name)
    theirs = transforms.CenterCrop(size)(transforms.Resize(size, interpolation=mode)(Image.fromarray(image)))
    assert np.array_equal(square(image, size, name), np.asarray(theirs))


def test_square_antialiases_and_keeps_constants() -> None:
    board = np.indices((64, 96)).sum(0) % 2 * np.uint8(255)  # a checkerboard averages to grey
    small = square(np.repeat(board[..., None].astype(np.uint8), 3, axis=2), 8)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() <= 8
    flat = np.full((31, 45, 3), 201, dtype=np.uint8)
    assert (square(flat, 12, "lanczos", "crop") == 201).all()
    assert (square(flat, 12, "lanczos", "squash") == 201).all()


def test_squash_keeps_the_borders_that_crop_loses() -> None:
    image = np.zeros((20, 60, 3), dtype=np.uint8)
    image[:, :10] = 255
    assert square(image, 20).max() == 0
    assert square(image, 20, fit="squash")[:, 0].min() == 255


def test_to_uint8_rounds_each_level_to_itself() -> None:
    levels = np.arange(256, dtype=np.float32)
    batch = np.broadcast_to((levels / 127.5 - 1)[:, None, None, None], (256, 3, 2, 2))
    assert np.array_equal(to_uint8(batch)[:, 0, 0, 0], np.arange(256))
    darker = to_uint8(batch - np.float32(1e-4), mode="truncate")[:, 0, 0, 0]
    assert np.array_equal(darker, np.maximum(np.arange(256) - 1, 0)), "truncation loses a level"


def test_to_uint8_middle_grey_and_overshoot() -> None:
    batch = np.broadcast_to(np.array([0.0, -1.7, 1.3])[:, None, None, None], (3, 1, 1, 3))
    assert to_uint8(batch, "NHWC")[:, 0, 0, 0].tolist() == [128, 0, 255]
    assert to_uint8(batch, "NHWC", "truncate")[:, 0, 0, 0].tolist() == [127, 0, 255]


def test_to_uint8_layouts_agree_also_in_half_precision() -> None:
    batch = np.random.RandomState(0).uniform(-1.2, 1.2, (2, 3, 3, 3)).astype(np.float16)
    first = to_uint8(batch, "NCHW")
    assert np.array_equal(first, to_uint8(batch.transpose(0, 2, 3, 1), "NHWC"))
    assert np.array_equal(first, to_uint8(batch.astype(np.float32), "NCHW"))
    assert first.flags.c_contiguous


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_to_uint8_names_images_that_are_not_finite(bad: float) -> None:
    batch = np.zeros((4, 3, 2, 2), dtype=np.float32)
    batch[1, 2, 0, 1] = batch[3, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"images \[1, 3\]"):
        to_uint8(batch)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 4, 4, 3), (1, 4, 4, 4)])
def test_to_uint8_refuses_another_layout(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="NCHW"):
        to_uint8(np.zeros(shape, dtype=np.float32))


def test_png_is_exact_deterministic_and_leaves_nothing_behind(tmp_path: Path) -> None:
    image = noise(9, 11)
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, image, fsync=True)
    write_png(tmp_path / "a.png", image)  # replaces
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(load_rgb(tmp_path / "a.png"), image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_png_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, noise(4, 4))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="float64"):
        write_png(path, noise(4, 4) / 255)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_digest_is_of_the_pixels() -> None:
    image = noise(4, 6)
    assert digest(image) == hashlib.sha256(image.tobytes()).hexdigest()
    assert digest(image.transpose(1, 0, 2)) == digest(image.transpose(1, 0, 2).copy()), (
        "memory order is no matter"
    )
    assert digest(image) != digest(image[::-1])
