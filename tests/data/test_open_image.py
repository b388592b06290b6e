"""Files with damage: what is decoded of them, and what counts as damage at all."""

import io
import logging
import re
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionsweep.data import open_image
from visionsweep.data.cache import decode_all
from visionsweep.data.damaged import Load, rescue
from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import decode_file, decode_image
from visionsweep.data.library_noise import quiet_libraries
from visionsweep.data.open_image import UnreadableImageError
from visionsweep.data.opened import Opened
from visionsweep.errors import DataError

FULL = Preprocessing((96, 128), 3, "stretch")


def photo(seed: int = 0) -> Image.Image:
    """Return an image with content everywhere, 128 x 96."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((128, 96), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("size", [(96, 128), (24, 32)], ids=["full size", "draft"])
def test_a_jpeg_without_its_end_is_whole(
    tmp_path: Path, options: dict[str, object], cut: int, size: tuple[int, int]
) -> None:
    preprocessing = Preprocessing(size, 3, "stretch")
    content = encoded(photo(), "jpeg", quality=90, **options)
    whole = decode_image(written(tmp_path / "whole.jpg", content), preprocessing)
    decoded = decode_file(written(tmp_path / "cut.jpg", content[:-cut]), preprocessing)
    np.testing.assert_array_equal(decoded.pixels, whole)
    assert decoded.damage is None
    assert decoded.notes == ["truncated, but no pixel is missing"]


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "tiff", "gif", "tga"])
def test_repair_takes_what_is_there(tmp_path: Path, kind: str) -> None:
    content = encoded(photo(), kind, interlace=False)  # interlace is an option of GIF
    whole = decode_image(written(tmp_path / f"whole.{kind}", content), FULL).astype(int)
    path = written(tmp_path / f"cut.{kind}", content[: len(content) // 2])
    with pytest.raises(UnreadableImageError, match=rf"cut\.{kind}"):
        decode_file(path, FULL)
    decoded = decode_file(path, FULL, repair=True)
    assert decoded.damage
    # The first third is exact; some formats store images from the bottom up.
    same = (decoded.pixels == whole).all(axis=0).mean(axis=1)
    rows = slice(64, 96) if kind in ("bmp", "tga") else slice(0, 32)
    assert same[rows].mean() > 0.9
    assert same.mean() < 0.7


@pytest.mark.parametrize("missing", [4, 40, 400])
def test_even_a_few_missing_pixels_are_noticed(tmp_path: Path, missing: int) -> None:
    content = encoded(photo(), "jpeg", quality=95)
    path = written(tmp_path / "cut.jpg", content[: -2 - missing])
    with pytest.raises(UnreadableImageError, match=r"cut\.jpg \(truncated\)"):
        decode_image(path, FULL)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGBA", "F"])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_missing_pixels_are_noticed_in_every_mode(tmp_path: Path, mode: str, kind: str) -> None:
    if (mode, kind) == ("F", "png"):
        return  # a format without floats
    dots = Image.effect_noise((128, 96), 90)
    image = Image.fromarray(np.asarray(dots, np.uint16) * 200) if mode == "I;16" else dots
    path = tmp_path / f"cut.{kind}"
    image.convert(mode).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableImageError):
        decode_image(path, FULL)


def test_other_threads_notice_damage_while_one_repairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own switch is one for the whole process."""
    content = encoded(photo(), "png")
    path = written(tmp_path / "cut.png", content[: len(content) // 2])
    meanwhile = []

    def look() -> None:
        try:
            meanwhile.append(decode_image(path, FULL))
        except UnreadableImageError as error:
            meanwhile.append(error.reason)

    def rescue_and_look(content: bytes, load: Load) -> tuple[Opened, bool] | None:
        def load_and_look(data: bytes, fill: int) -> Opened:
            if threading.current_thread() is threading.main_thread():
                thread = threading.Thread(target=look)
                thread.start()
                thread.join()
            return load(data, fill)

        return rescue(content, load_and_look)

    monkeypatch.setattr(open_image, "rescue", rescue_and_look)
    decode_image(path, FULL, repair=True)
    assert meanwhile == ["truncated"] * 2


def test_a_file_with_nothing_in_it_cannot_be_repaired(tmp_path: Path) -> None:
    content = encoded(photo(), "jpeg")
    scan = content.index(b"\xff\xda")  # the pixels follow
    for name, part in (("text.jpg", b"hello"), ("head.jpg", content[:scan]), ("empty.png", b"")):
        with pytest.raises(UnreadableImageError, match=re.escape(name)):
            decode_image(written(tmp_path / name, part), FULL, repair=True)


def test_repaired_files_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [
        written(tmp_path / f"{seed}.jpg", encoded(photo(seed), "jpeg", quality=95))
        for seed in range(3)
    ]
    written(paths[1], paths[1].read_bytes()[:2000])
    paths.append(written(tmp_path / "text.jpg", b"hello"))
    for folder in ("none", str(tmp_path), str(tmp_path)):
        caplog.clear()
        decoded = decode_all(paths, FULL, "repair", folder)
        assert decoded.kept == [0, 1, 2]
        assert decoded.bad == [str(paths[3])]
        assert (
            f"1 of 4 files are damaged, e.g. {paths[1]} (truncated): what could be decoded is used"
        ) in caplog.text
        assert "1 of 4 files left out (data.on_bad_image=repair)" in caplog.text
    with pytest.raises(DataError, match=r"1\.jpg \(truncated\); 2 of 4 .*on_bad_image=repair or"):
        decode_all(paths, FULL, "error", str(tmp_path))


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    """Return a chunk of a PNG file."""
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def with_exif(body: bytes) -> bytes:
    """Return a JPEG whose EXIF block is `body`."""
    content = encoded(photo(), "jpeg")
    body = b"Exif\0\0" + body
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


def with_png_chunk(extra: bytes) -> bytes:
    content = encoded(photo(), "png")
    return content[:33] + extra + content[33:]  # behind the header


BAD_METADATA = {
    "exif of no entries": with_exif(b"II*\0\x08\0\0\0\xff\xff"),
    "exif of garbage": with_exif(b"garbage"),
    "exif nowhere": with_exif(b"II*\0\xff\xff\xff\x7f"),
    "orientation of a wrong type": with_exif(
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04xyz\0\0\0\0\0"
    ),
    "orientation 9": with_exif(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0"),
    "checksum of a text": with_png_chunk(chunk(b"tEXt", b"a\0b", checksum=1)),
    "text too large": with_png_chunk(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)))),
    "broken color profile": with_png_chunk(chunk(b"iCCP", b"a\0\0broken")),
    "exif in PNG": with_png_chunk(chunk(b"eXIf", b"garbage")),
    "no end": encoded(photo(), "png")[:-12],
}


@pytest.mark.parametrize("what", BAD_METADATA)
def test_bad_metadata_cost_no_pixel(tmp_path: Path, what: str) -> None:
    content = BAD_METADATA[what]
    good = encoded(photo(), "png" if content.startswith(b"\x89") else "jpeg")
    with quiet_libraries():
        decoded = decode_image(written(tmp_path / "bad", content), FULL)
    np.testing.assert_array_equal(decoded, decode_image(written(tmp_path / "good", good), FULL))


# Stored image -> upright image, by the orientation (EXIF 2.3, section 4.6.4).
TURNS = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}


def test_damage_within_a_png_is_noticed_and_what_precedes_it_is_repaired(tmp_path: Path) -> None:
    content = bytearray(encoded(photo(), "png"))
    whole = decode_image(written(tmp_path / "whole.png", bytes(content)), FULL)
    start, length = content.index(b"IDAT") + 4, int.from_bytes(content[33:37])
    content[start + length : start + length + 4] = b"oops"  # the checksum of the pixels
    decoded = decode_file(written(tmp_path / "check.png", bytes(content)), FULL)
    np.testing.assert_array_equal(decoded.pixels, whole)
    assert decoded.damage is None
    content[start + length // 2] ^= 0xFF
    path = written(tmp_path / "damaged.png", bytes(content))
    with pytest.raises(UnreadableImageError, match=r"damaged\.png"):
        decode_image(path, FULL)
    repaired = decode_file(path, FULL, repair=True)
    assert repaired.damage
    np.testing.assert_array_equal(repaired.pixels[:, :32], whole[:, :32])
    assert (repaired.pixels != whole).any()


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp", "damaged exif"])
def test_the_image_is_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "damaged exif":  # a second entry refers to a place behind the end
        entries = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
        entries += struct.pack(">HHII", 0x8769, 4, 1, 0x7FFFFFFF)
        content = with_exif(b"MM\0*\0\0\0\x08\0\x02" + entries + bytes(4))
        bare = encoded(photo(), "jpeg")
    else:
        content = encoded(photo(), kind, exif=exif.tobytes())
        bare = encoded(photo(), kind)
    with Image.open(io.BytesIO(bare)) as image:
        upright = TURNS[orientation](np.asarray(image))
    shape = Preprocessing(upright.shape[:2], 3, "stretch")
    decoded = decode_image(written(tmp_path / "turned", content), shape)
    np.testing.assert_array_equal(decoded, upright.transpose(2, 0, 1))


def test_too_many_pixels_name_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    photo().save(path)
    small = Preprocessing((8, 8), 3, max_pixels=128 * 96 - 1)
    with pytest.raises(
        DataError,
        match=r"\(12,288 pixels, more than data\.max_pixels=12287\); 1 of 1 files\. Raise",
    ):
        decode_all([path], small, "error", "none")
    for limit in (128 * 96, None):
        decode_all([path], Preprocessing((8, 8), 3, max_pixels=limit), "error", "none")


def test_a_large_image_prints_no_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    photo().save(tmp_path / "large.png")
    photo(1).save(tmp_path / "other.png")
    limited = Preprocessing((8, 8), 3, max_pixels=20_000)  # Pillow warns from the half of it
    decode_all([tmp_path / "large.png", tmp_path / "other.png"], limited, "error", "none")
    assert not recwarn
    assert "warnings about" in caplog.text
