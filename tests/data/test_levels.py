"""Images of more than 8 bits: one range of grey levels for a data set."""

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionsweep.data.cache import decode_all
from visionsweep.data.dataset import AUTO, Levels, Preprocessing
from visionsweep.data.decode import decode_file, decode_image
from visionsweep.data.open_image import UnreadableImageError


def grey(levels: Levels = AUTO) -> Preprocessing:
    return Preprocessing((8, 8), 1, levels=levels)


def saved(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def ramp(low: float, high: float, dtype: type) -> np.ndarray:
    values = np.linspace(low, high, 64).reshape(8, 8)
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)


@pytest.mark.parametrize("cache", ["none", "folder"])
@pytest.mark.parametrize(
    ("dtype", "suffix", "tops", "levels"),
    [
        (np.uint16, "png", (30, 100), (0, 255)),  # 8-bit values in 16-bit files
        (np.uint16, "tif", (900, 4000), (0, 4095)),  # 12 bits
        (np.uint16, "pgm", (900, 60_000), (0, 65_535)),
        (np.int32, "tif", (100, 200), (0, 255)),
        (np.int32, "tif", (900, 1_000_000), (0, 2**20 - 1)),
        (np.float32, "tif", (0.3, 0.9), (0, 1)),
        (np.float32, "tif", (0.9, 200), (0, 255)),
        (np.float32, "tif", (100, 3000), (0, 3000)),
    ],
)
def test_one_range_serves_all_images(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    dtype: type,
    suffix: str,
    tops: tuple[float, float],
    levels: tuple[float, float],
    cache: str,
) -> None:
    caplog.set_level(logging.INFO)
    ramps = [ramp(0, top, dtype) for top in tops]
    paths = [saved(each, tmp_path / f"{i}.{suffix}") for i, each in enumerate(ramps)]
    for _ in range(2):  # the second time perhaps from the cache
        caplog.clear()
        decoded = decode_all(paths, grey(), "error", str(tmp_path) if cache == "folder" else "none")
        assert decoded.preprocessing == grey(levels)
        for image, values in zip(decoded.images, ramps, strict=True):
            expected = (values.astype(np.float64) - levels[0]) / (levels[1] - levels[0]) * 255
            np.testing.assert_allclose(image[0], expected, atol=0.51)
        assert (
            f"2 images with more than 8 bits per pixel, grey levels 0..{tops[1]:g}: 0 becomes "
            f"black and {levels[1]:g} white (data.levels=auto)"
        ) in caplog.text
    np.testing.assert_array_equal(decode_image(paths[0], decoded.preprocessing), decoded.images[0])


def test_negative_values_use_the_range_of_the_data_set(tmp_path: Path) -> None:
    paths = [
        saved(ramp(low, high, np.int32), tmp_path / f"{low}.tif")
        for low, high in ((-1000, 0), (0, 3000))
    ]
    decoded = decode_all(paths, grey(), "error", "none")
    assert decoded.preprocessing.levels == (-1000, 3000)
    assert decoded.images[0].max() == round(1000 / 4000 * 255)


def deep_png(pixels: np.ndarray, path: Path) -> Path:
    """Write (H, W, 3 or 4) uint16 pixels, which Pillow cannot."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def test_colors_of_16_bits_keep_what_a_camera_of_12_bits_saw(tmp_path: Path) -> None:
    """Pillow alone would keep the high byte: 16 levels."""
    pixels = np.random.default_rng(0).integers(0, 4096, (8, 8, 4)).astype(np.uint16)
    pixels[..., 3] = 65_535
    pixels[0, :, 3] = 0
    paths = [
        deep_png(pixels[..., :3], tmp_path / "rgb.png"),
        deep_png(pixels, tmp_path / "rgba.png"),
    ]
    decoded = decode_all(paths, Preprocessing((8, 8), 3), "error", "none")
    assert decoded.preprocessing.levels == (0, 4095)
    expected = (pixels[..., :3] / 4095 * 255).transpose(2, 0, 1)
    np.testing.assert_allclose(decoded.images[0], expected, atol=0.51)
    np.testing.assert_allclose(decoded.images[1, :, 1:], expected[:, 1:], atol=0.51)
    assert (decoded.images[1, :, 0] == 255).all()
    old = decode_image(paths[0], Preprocessing((8, 8), 3, levels=None))
    np.testing.assert_array_equal(old, (pixels[..., :3] >> 8).transpose(2, 0, 1))


def test_8_bit_images_have_no_levels_and_keep_their_values(tmp_path: Path) -> None:
    pixels = ramp(10, 200, np.uint8)
    decoded = decode_all([saved(pixels, tmp_path / "a.png")], grey(), "error", "none")
    assert decoded.preprocessing.levels is None
    np.testing.assert_array_equal(decoded.images[0, 0], pixels)
    clipped = decode_image(tmp_path / "a.png", grey((100, 150)))
    np.testing.assert_array_equal(clipped[0], pixels)


def test_levels_that_are_given_clip(tmp_path: Path) -> None:
    pixels = ramp(0, 4000, np.uint16)
    decoded = decode_image(saved(pixels, tmp_path / "a.png"), grey((1000, 2000)))
    expected = np.clip((pixels.astype(float) - 1000) / 1000, 0, 1) * 255
    np.testing.assert_allclose(decoded[0], expected, atol=0.51)


def test_few_grey_levels_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hot pixel stretches the range; nearly all of the pixels then share a few grey levels."""
    pixels = np.random.default_rng(0).integers(20_000, 21_000, (64, 64)).astype(np.uint16)
    pixels[3, 4] = 65_535
    decode_all([saved(pixels, tmp_path / "a.png")], grey(), "error", "none")
    assert "data.levels=auto: most pixels lie in 200" in caplog.text
    assert "which leaves them 5 of 256 grey levels; data.levels=[200" in caplog.text


def test_an_old_checkpoint_reads_files_by_their_type(tmp_path: Path) -> None:
    pixels = ramp(0, 20_000, np.uint16)
    decoded = decode_image(saved(pixels, tmp_path / "a.png"), grey(None))
    np.testing.assert_allclose(decoded[0], pixels / 257, atol=0.51)
    values = ramp(0, 0.5, np.float32)
    decoded = decode_image(saved(values, tmp_path / "a.tif"), grey(None))
    np.testing.assert_allclose(decoded[0], values * 255, atol=0.51)


def test_constant_negative_floats_are_black_and_nan_is_refused(tmp_path: Path) -> None:
    flat = saved(np.full((8, 8), -3, np.float32), tmp_path / "flat.tif")
    assert decode_image(flat, grey()).max() == 0
    half = np.full((8, 8), 2, np.float32)
    half[0] = np.nan
    nan = saved(half, tmp_path / "nan.tif")
    with pytest.raises(UnreadableImageError, match=r"nan\.tif \(pixels that are not finite\)"):
        decode_image(nan, grey())
    repaired = decode_file(nan, grey((0, 4)), repair=True)
    assert repaired.damage == "pixels that are not finite"
    assert (repaired.pixels == 128).all()  # the lowest value, 2 of 4
    with pytest.raises(UnreadableImageError, match=r"all\.tif \(no pixel is finite\)"):
        decode_image(saved(half * np.nan, tmp_path / "all.tif"), grey())
