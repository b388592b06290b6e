"""The libraries' own warnings: counted, and not printed."""

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from visionsweep.data.cache import decode_all
from visionsweep.data.dataset import Preprocessing


def test_warnings_are_counted_and_not_printed(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.INFO)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    paths = [tmp_path / name for name in ("good.jpg", "exif.jpg", "samples.tif", "strip.tif")]
    for path in paths:
        options = {"compression": "tiff_lzw"} if path.suffix == ".tif" else {}
        Image.fromarray(noise).save(path, **options)
    content = paths[1].read_bytes()
    block = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"  # as many entries as there is no room for
    paths[1].write_bytes(
        content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    )
    # A logged error of Pillow's, and a message that libtiff itself writes to standard error.
    damage_samples(paths[2])
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[:8] + b"\xff" * 40 + content[48:])
    decoded = decode_all(paths, Preprocessing((8, 8), 3), "skip", "none")
    assert decoded.kept == [0, 1]
    assert capfd.readouterr() == ("", "")
    assert not recwarn
    assert f"; warnings about 1 file, e.g. {paths[1]} (Corrupt EXIF data." in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("PIL")]


def damage_samples(path: Path) -> None:
    """Set the number of samples per pixel to 255."""
    content = bytearray(path.read_bytes())
    entry = struct.pack("<HHI", TiffImagePlugin.SAMPLESPERPIXEL, 3, 1)
    place = content.index(entry) + len(entry)
    content[place : place + 2] = struct.pack("<H", 255)
    path.write_bytes(content)
