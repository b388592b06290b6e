"""Decoding: modes of Pillow, orientation, the three ways to fit, files that are not images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionsweep.data import decode
from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import decode_image
from visionsweep.data.open_image import UnreadableImageError
from visionsweep.data.opened import Opened

RGB = Preprocessing((8, 8), 3)
GREY = Preprocessing((8, 8), 1)
RED = (200, 40, 10)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_keeps_its_values_and_becomes_channels_first(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    decoded = decode_image(saved(Image.fromarray(pixels), tmp_path / "a.png"), RGB)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))


def test_grey_is_the_luma_of_itu_601(tmp_path: Path) -> None:
    decoded = decode_image(saved(Image.new("RGB", (8, 8), RED), tmp_path / "a.png"), GREY)
    luma = 0.299 * 200 + 0.587 * 40 + 0.114 * 10
    assert decoded.shape == (1, 8, 8)
    np.testing.assert_allclose(decoded, luma, atol=1)


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 5)
    image.putpalette([0, 0, 0] * 5 + list(RED))
    decoded = decode_image(saved(image, tmp_path / "a.png"), RGB)
    np.testing.assert_array_equal(decoded[:, 0, 0], RED)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_transparent_palette_entry_is_white(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([1, 2, 3, *RED])
    image.paste(1, (0, 0, 4, 8))
    decoded = decode_image(saved(image, tmp_path / "a.png", transparency=transparency), RGB)
    np.testing.assert_array_equal(decoded[:, 0, 0], RED)
    np.testing.assert_array_equal(decoded[:, 0, 7], (255, 255, 255))


@pytest.mark.parametrize("preprocessing", [RGB, GREY])
def test_alpha_is_composited_on_white(tmp_path: Path, preprocessing: Preprocessing) -> None:
    half = 51 / 255  # opacity
    grey = decode_image(
        saved(Image.new("LA", (8, 8), (100, 51)), tmp_path / "la.png"), preprocessing
    )
    np.testing.assert_allclose(grey, 100 * half + 255 * (1 - half), atol=1)
    color = decode_image(
        saved(Image.new("RGBA", (8, 8), (80, 80, 80, 51)), tmp_path / "c.png"), preprocessing
    )
    np.testing.assert_allclose(color, 80 * half + 255 * (1 - half), atol=1)


@pytest.mark.parametrize(
    ("background", "behind"), [((0, 0, 0), 0), ((255, 255, 255), 255), ((10, 20, 30), None)]
)
def test_the_background_is_what_shows_through(
    tmp_path: Path, background: tuple[int, int, int], behind: int | None
) -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((200, 100, 50, 255), (0, 0, 4, 8))
    path = saved(image, tmp_path / "a.png")
    decoded = decode_image(path, Preprocessing((8, 8), 3, background=background))
    np.testing.assert_array_equal(decoded[:, 0, 0], (200, 100, 50))
    np.testing.assert_array_equal(decoded[:, 0, 7], background if behind is None else behind)


def test_transparency_can_be_ignored(tmp_path: Path) -> None:
    """Some programs write pictures whose alpha is 0 everywhere."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    path = saved(Image.fromarray(pixels), tmp_path / "a.tga")
    np.testing.assert_array_equal(decode_image(path, RGB), 255)
    decoded = decode_image(path, Preprocessing((8, 8), 3, background=None))
    np.testing.assert_array_equal(decoded, pixels[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("preprocessing", [RGB, GREY])
@pytest.mark.parametrize(
    "mode", ["LAB", "HSV", "YCbCr", "CMYK", "La", "RGBa", "PA", "RGBX", "I;16B"]
)
def test_every_mode_of_pillow_is_read(
    tmp_path: Path, mode: str, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files with most of these modes are rare, so the image is given as if it were loaded."""
    color = Image.new("RGB", (8, 8), RED)
    stored = {
        "La": lambda: color.convert("LA").convert("La"),
        "RGBa": lambda: color.convert("RGBA").convert("RGBa"),
        "PA": lambda: color.convert("P").convert("PA"),
        "I;16B": lambda: Image.fromarray(np.full((8, 8), 20_000, ">u2")),
        "LAB": lambda: color.convert("LAB"),
    }.get(mode, lambda: color.convert(mode))()
    assert stored.mode == mode
    monkeypatch.setattr(decode, "open_upright", lambda *_, **__: (Opened(stored), None))
    decoded = decode_image(saved(color, tmp_path / "a.png"), preprocessing)
    luma = 0.299 * 200 + 0.587 * 40 + 0.114 * 10
    grey = {"La": luma, "I;16B": 20_000 / 32_767 * 255}.get(mode)
    expected = RED if preprocessing is RGB and grey is None else [luma if grey is None else grey]
    np.testing.assert_allclose(decoded[:, 3, 3], np.broadcast_to(expected, len(decoded)), atol=12)


def test_a_lab_tiff_is_read_as_grey(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), RED).convert("LAB")
    decoded = decode_image(saved(image, tmp_path / "a.tif"), GREY)
    np.testing.assert_allclose(decoded, 0.299 * 200 + 0.587 * 40 + 0.114 * 10, atol=3)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    decoded = decode_image(saved(image, tmp_path / "a.jpg", quality=95), RGB)
    np.testing.assert_allclose(decoded.mean(axis=(1, 2)), (255, 0, 0), atol=6)


def test_one_bit(tmp_path: Path) -> None:
    image = Image.new("1", (8, 8), 0)
    image.paste(1, (4, 0, 8, 8))
    decoded = decode_image(saved(image, tmp_path / "a.png"), GREY)
    np.testing.assert_array_equal(decoded[0, 0], [0] * 4 + [255] * 4)


def test_exif_orientation_is_applied_also_in_draft_mode(tmp_path: Path) -> None:
    # Stored on its side: by orientation 6 the stored left edge is the top of the picture.
    stored = Image.new("RGB", (512, 256), "black")
    stored.paste((255, 255, 255), (0, 0, 256, 256))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(stored, tmp_path / "a.jpg", exif=exif, quality=95)
    decoded = decode_image(path, Preprocessing((32, 16), 1))
    assert decoded.shape == (1, 32, 16)
    assert decoded[0, :15].min() > 240
    assert decoded[0, 17:].max() < 15


def test_draft_mode_measures_the_upright_image(tmp_path: Path) -> None:
    # Stripes with a period of 8 pixels: an eighth of the size, right for the stored axes, flattens.
    stored = Image.fromarray(np.tile(np.array([0] * 4 + [255] * 4, dtype=np.uint8), (2048, 32)))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(stored, tmp_path / "a.jpg", exif=exif, quality=95)
    decoded = decode_image(path, Preprocessing((128, 4), 1))
    assert np.ptp(decoded[0, 32:96].astype(int)) > 150


def test_draft_mode_stays_close_to_the_full_decode(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(480), np.arange(640)).astype(np.float64)
    image = Image.fromarray((ramp / ramp.max() * 255).astype(np.uint8))
    decoded = decode_image(saved(image, tmp_path / "a.jpg", quality=95), Preprocessing((48, 64), 1))
    expected = np.asarray(image.resize((64, 48), Image.Resampling.BILINEAR), dtype=np.float64)
    np.testing.assert_allclose(decoded[0], expected, atol=3)


def stripes(tmp_path: Path) -> Path:
    """Write an image 8 high and 24 wide: a black, a white and a grey square."""
    image = Image.new("L", (24, 8), 0)
    image.paste(255, (8, 0, 16, 8))
    image.paste(128, (16, 0, 24, 8))
    return saved(image, tmp_path / "stripes.png")


def test_crop_keeps_the_centre(tmp_path: Path) -> None:
    assert (decode_image(stripes(tmp_path), Preprocessing((8, 8), 1, "crop")) == 255).all()


def test_pad_keeps_everything_on_black(tmp_path: Path) -> None:
    decoded = decode_image(stripes(tmp_path), Preprocessing((24, 24), 1, "pad"))[0]
    assert decoded[:8].max() == 0
    assert decoded[16:].max() == 0
    np.testing.assert_array_equal(decoded[8:16], np.asarray(Image.open(stripes(tmp_path))))


def test_stretch_fills_the_target(tmp_path: Path) -> None:
    decoded = decode_image(stripes(tmp_path), Preprocessing((24, 24), 1, "stretch"))[0]
    np.testing.assert_array_equal(decoded[:, [2, 12, 21]], np.broadcast_to([0, 255, 128], (24, 3)))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(Image.fromarray(pixels), tmp_path / f"17.{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImageError, match=rf"cannot read .*17\.{suffix} \(truncated\)"):
        decode_image(path, RGB)


def test_a_text_file_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(UnreadableImageError, match=r"text\.jpg \(not an image\)"):
        decode_image(tmp_path / "text.jpg", RGB)
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg \(no such file or directory\)"):
        decode_image(tmp_path / "gone.jpg", RGB)
