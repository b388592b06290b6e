"""The image cache: built once, shared, rebuilt if a file changes, safe against a killed build."""

import io
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionsweep.data import cache_file, decode_files, progress, scan_file
from visionsweep.data.cache import Streaming, decode_all
from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import Decoded, decode_file, decode_image
from visionsweep.data.findings import Findings
from visionsweep.data.open_image import UnreadableImageError
from visionsweep.errors import ConfigError, DataError
from visionsweep.rundir.lock import lock_file

SMALL = Preprocessing((8, 8), 3)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """150 images, so that decoding takes several chunks."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    found = [folder / f"{index:03}.png" for index in range(150)]
    for path in found:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return found


def expected(paths: list[Path]) -> torch.Tensor:
    return torch.from_numpy(np.stack([decode_image(path, SMALL) for path in paths]))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode_files, "decode_file", refuse)


@pytest.mark.parametrize("where", ["none", "folder"])
def test_images_keep_the_order_of_the_paths(tmp_path: Path, paths: list[Path], where: str) -> None:
    shuffled = [paths[index] for index in np.random.default_rng(1).permutation(len(paths))]
    decoded = decode_all(
        shuffled, SMALL, "error", "none" if where == "none" else str(tmp_path / "cache")
    )
    assert torch.equal(decoded.images, expected(shuffled))
    assert decoded.kept == list(range(150))
    assert decoded.bad == []
    assert (tmp_path / "cache").exists() == (where == "folder")


def test_the_second_time_opens_the_file(
    tmp_path: Path,
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    first = decode_all(paths, SMALL, "error", str(tmp_path / "cache"))
    assert "decoded 150 images to 3x8x8 in" in caplog.text
    caplog.clear()
    forbid_decoding(monkeypatch)
    second = decode_all(paths, SMALL, "error", str(tmp_path / "cache"))
    assert torch.equal(first.images, second.images)
    assert not caplog.records
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_writes_to_the_images_stay_out_of_the_file(tmp_path: Path, paths: list[Path]) -> None:
    decode_all(paths, SMALL, "error", str(tmp_path)).images.zero_()
    assert torch.equal(decode_all(paths, SMALL, "error", str(tmp_path)).images, expected(paths))


def test_the_default_folder_follows_xdg(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    decode_all(paths[:3], SMALL, "error", None)
    assert list((tmp_path / "xdg" / "visionsweep").glob("*.npy"))


@pytest.mark.parametrize("other", [Preprocessing((8, 9), 3), Preprocessing((8, 8), 1)])
def test_other_preprocessing_uses_another_file(
    tmp_path: Path, paths: list[Path], other: Preprocessing
) -> None:
    decode_all(paths[:3], SMALL, "error", str(tmp_path))
    images = decode_all(paths[:3], other, "error", str(tmp_path)).images
    assert images.shape == (3, other.channels, *other.image_size)


@pytest.mark.parametrize("what", ["size", "time"])
def test_a_changed_file_is_decoded_again(tmp_path: Path, paths: list[Path], what: str) -> None:
    Image.new("RGB", (8, 8), (9, 9, 9)).save(paths[7], format="BMP")
    before = paths[7].stat()
    decode_all(paths, SMALL, "error", str(tmp_path))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(paths[7], format="BMP" if what == "time" else "PNG")
    later = before.st_mtime_ns + (what == "time")
    os.utime(paths[7], ns=(before.st_atime_ns, later))
    assert (paths[7].stat().st_size == before.st_size) == (what == "time")
    images = decode_all(paths, SMALL, "error", str(tmp_path)).images
    assert images[7, :, 0, 0].tolist() == [1, 2, 3]


def test_a_file_that_was_replaced_unnoticeably_is_decoded_again(
    tmp_path: Path, paths: list[Path]
) -> None:
    """Of the same size, and with its times put back as cp -p and rsync -a do."""
    Image.new("RGB", (8, 8), (9, 9, 9)).save(paths[7], format="BMP")
    before = paths[7].stat()
    decode_all(paths, SMALL, "error", str(tmp_path))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(paths[7], format="BMP")
    os.utime(paths[7], ns=(before.st_atime_ns, before.st_mtime_ns))
    images = decode_all(paths, SMALL, "error", str(tmp_path)).images
    assert images[7, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("where", ["none", "folder"])
def test_images_of_one_color_are_counted(
    tmp_path: Path, paths: list[Path], caplog: pytest.LogCaptureFixture, where: str
) -> None:
    cache_dir = "none" if where == "none" else str(tmp_path / "cache")
    Image.new("L", (8, 8), 7).save(paths[5])
    for _ in range(2):  # also if nothing is decoded any more
        caplog.clear()
        decode_all(paths, SMALL, "error", cache_dir)
        assert f"1 of 150 images are of one color, e.g. {paths[5]}" in caplog.text
        assert "data.background" not in caplog.text
    drawing = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    drawing.paste((255, 255, 255, 255), (2, 2, 4, 4))  # white on transparent ground
    drawing.save(paths[6])
    caplog.clear()
    decode_all(paths, SMALL, "error", cache_dir)
    assert (
        f"2 of 150 images are of one color, e.g. {paths[6]}; 1 of them has transparency: set "
        "data.background to another color, or to ignore"
    ) in caplog.text
    caplog.clear()
    on_black = Preprocessing((8, 8), 3, background=(0, 0, 0))
    decode_all(paths, on_black, "error", cache_dir)
    assert "1 of 150 images are of one color" in caplog.text


def test_files_are_read_once_and_hashed(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        read.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    paths[9].write_bytes(original(paths[2]))
    for times in (1, 1):
        digests = decode_all(paths, SMALL, "error", str(tmp_path / "cache")).digests
        assert [path for path in read if path.suffix == ".png"].count(paths[3]) == times
    assert digests[9] == digests[2]
    assert len(set(digests)) == 149


def name_of(paths: list[Path], tmp_path: Path) -> str:
    """Return the name of the files of these images, in any folder."""
    decode_all(paths, SMALL, "error", str(tmp_path / "elsewhere"))
    (array,) = (tmp_path / "elsewhere").glob("*.npy")
    return array.stem


def zero(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[9_000:9_100] = bytes(100)
    path.write_bytes(contents)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda array: os.truncate(array, array.stat().st_size - 1),
    "empty": lambda array: array.write_bytes(b""),
    "longer": lambda array: array.write_bytes(array.read_bytes() + b"x"),
    "some zeros": zero,
    "no array": lambda array: array.write_bytes(b"no array".ljust(array.stat().st_size)),
    "checksums empty": lambda array: array.with_suffix(".json").write_bytes(b""),
    "checksums garbled": lambda array: array.with_suffix(".json").write_bytes(b"\xff"),
    "checksums of another kind": lambda array: array.with_suffix(".json").write_text("[]"),
    "no checksums": lambda a: a.with_suffix(".json").write_text('{"bad": {}, "crc32": []}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_again(
    tmp_path: Path, paths: list[Path], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = tmp_path / "cache"
    decode_all(paths, SMALL, "error", str(folder))
    (array,) = folder.glob("*.npy")
    DAMAGES[damage](array)
    for _ in range(2):
        assert torch.equal(decode_all(paths, SMALL, "error", str(folder)).images, expected(paths))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert lines[0].startswith(f"{array} is damaged (")


def test_an_array_of_another_shape_is_built_again(tmp_path: Path, paths: list[Path]) -> None:
    """It has the right checksums, as a file of another program's would."""
    decode_all(paths, SMALL, "error", str(tmp_path))
    (array,) = tmp_path.glob("*.npy")
    wrong = np.zeros((150, 8, 8, 3), np.uint8)
    cache_file.write(array, wrong.shape, [wrong], Findings())
    assert torch.equal(decode_all(paths, SMALL, "error", str(tmp_path)).images, expected(paths))


@pytest.mark.parametrize("what", ["the array", "its checksums"])
def test_a_build_that_was_not_finished_is_no_damage(
    tmp_path: Path, paths: list[Path], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    decode_all(paths, SMALL, "error", str(tmp_path))
    (array,) = tmp_path.glob("*.npy")
    (array if what == "the array" else array.with_suffix(".json")).unlink()
    assert torch.equal(decode_all(paths, SMALL, "error", str(tmp_path)).images, expected(paths))
    assert "damaged" not in caplog.text


def test_no_link_in_a_shared_folder_leads_elsewhere(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever name is taken for a temporary file, a link that somebody put there is not opened."""
    mine = tmp_path / "mine"
    mine.write_text("precious")
    folder = tmp_path / "cache"
    folder.mkdir()
    name = name_of(paths, tmp_path)
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: iter(["guessed", "free", "new"]))
    for planted in (f"{name}.npy", f"{name}.json", f"{name}.npy.tmp", f"{name}.tmp"):
        (folder / planted).symlink_to(mine)
    for planted in (f".{name}.npy.guessed", f".{name}.json.guessed"):
        (folder / planted).symlink_to(mine)
    assert torch.equal(decode_all(paths, SMALL, "error", str(folder)).images, expected(paths))
    assert mine.read_text() == "precious"


def test_dead_builds_leave_nothing_for_long(tmp_path: Path, paths: list[Path]) -> None:
    name = name_of(paths, tmp_path)
    dead, alive = (tmp_path / f".{name}.npy.{end}" for end in ("dead", "alive"))
    for path in (dead, alive):
        path.write_text("half")
    os.utime(dead, (0, 0))
    decode_all(paths, SMALL, "error", str(tmp_path))
    assert not dead.exists()
    assert alive.exists()


def test_decoding_says_how_far_it_is(
    tmp_path: Path,
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    decode_all(paths, SMALL, "error", "none")
    assert "decoded 64 of 150 images, " in caplog.text
    assert "decoded 150 of 150 images, 0.0 s left" in caplog.text


def test_on_a_terminal_a_bar_says_how_far_it_is(
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    decode_all(paths, SMALL, "error", "none")
    assert "150/150" in sys.stderr.getvalue()
    assert "of 150 images, " not in caplog.text


def test_a_process_that_waits_for_another_one_says_so(
    tmp_path: Path, paths: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    built = decode_all(paths, SMALL, "error", str(tmp_path / "other"))
    (name,) = (path.stem for path in (tmp_path / "other").glob("*.npy"))
    folder = tmp_path / "cache"
    folder.mkdir()
    waiting = "another process is decoding these images: waiting for it"
    assert waiting not in caplog.text
    with lock_file(folder / f"{name}.lock"):
        thread = threading.Thread(target=decode_all, args=(paths, SMALL, "error", str(folder)))
        thread.start()
        while waiting not in caplog.text and thread.is_alive():
            pass
        assert waiting in caplog.text
        for path in (tmp_path / "other").glob("*.*"):
            shutil.copy(path, folder)
        caplog.clear()
    thread.join()
    assert "decoded" not in caplog.text
    assert torch.equal(decode_all(paths, SMALL, "error", str(folder)).images, built.images)


@pytest.mark.parametrize("where", ["none", "folder"])
def test_more_images_than_the_limit_are_streamed(
    tmp_path: Path,
    paths: list[Path],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    paths[7].write_bytes(b"no image")
    folder = "none" if where == "none" else str(tmp_path / "cache")
    size = 150 * 3 * 8 * 8 / 1e9
    enough = decode_all(paths, SMALL, "skip", folder, streaming=Streaming(size, 2))
    assert isinstance(enough.images, torch.Tensor)
    streamed = decode_all(paths, SMALL, "skip", folder, streaming=Streaming(size / 2, 2))
    assert "than data.cache_limit_gb=1.44e-05: decoded anew in each epoch by 2 processes" in (
        caplog.text
    )
    assert (streamed.kept, streamed.bad, streamed.digests) == (
        *(enough.kept, enough.bad, enough.digests),
    )
    rows = torch.arange(0, 149, 7)
    assert torch.equal(streamed.images[rows], enough.images[rows])
    assert torch.equal(torch.stack(list(streamed.images)), enough.images)
    values = enough.images.to(torch.int64).flatten(2)
    pixels = streamed.images.pixels
    np.testing.assert_array_equal(pixels.sums, values.sum(dim=2))
    np.testing.assert_array_equal(pixels.squares, (values**2).sum(dim=2))
    if where == "folder":
        tried = spy_on_decoding(monkeypatch)
        again = decode_all(paths, SMALL, "skip", folder, streaming=Streaming(0.0, 1))
        assert tried == [paths[7]]  # it might be readable by now
        np.testing.assert_array_equal(again.images.pixels.checksums, pixels.checksums)


def test_a_damaged_scan_is_made_again(tmp_path: Path, paths: list[Path]) -> None:
    for content in (b"", b"PK", b"x" * 4000):
        first = decode_all(paths, SMALL, "error", str(tmp_path), streaming=Streaming(0.0, 0))
        (scan,) = tmp_path.glob(f"*{scan_file.SUFFIX}")
        whole = scan.read_bytes()
        scan.write_bytes(content or whole[:-100])
        again = decode_all(paths, SMALL, "error", str(tmp_path), streaming=Streaming(0.0, 0))
        np.testing.assert_array_equal(again.images.pixels.sums, first.images.pixels.sums)
        assert scan.stat().st_size == len(whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [((-1.0, None), r"data\.cache_limit_gb: .* got -1\.0"), ((None, -1), r"data\.workers: .* -1")],
)
def test_wrong_limits_are_refused(settings: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Streaming(*settings)


def spy_on_decoding(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    tried: list[Path] = []

    def spy(path: Path, preprocessing: Preprocessing, *, repair: bool) -> Decoded:
        tried.append(path)
        return decode_file(path, preprocessing, repair=repair)

    monkeypatch.setattr(decode_files, "decode_file", spy)
    return tried


def test_a_file_that_becomes_readable_is_decoded(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files on a network folder that was away keep their size and time."""
    folder = str(tmp_path / "cache")

    def away(path: Path, preprocessing: Preprocessing, *, repair: bool) -> Decoded:
        if path == paths[5]:
            raise UnreadableImageError(path, "input/output error")
        return decode_file(path, preprocessing, repair=repair)

    with monkeypatch.context() as patch:
        patch.setattr(decode_files, "decode_file", away)
        assert len(decode_all(paths, SMALL, "skip", folder).kept) == 149
    assert torch.equal(decode_all(paths, SMALL, "error", folder).images, expected(paths))


@pytest.mark.parametrize("where", ["none", "folder"])
def test_bad_images_raise_or_are_skipped(
    tmp_path: Path,
    paths: list[Path],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache_dir = "none" if where == "none" else str(tmp_path / "cache")
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    paths[149].write_text("no image")
    with pytest.raises(
        DataError, match=r"cannot read .*003\.png \(.+\); 2 of 150 files.*data\.on_bad_image=skip"
    ):
        decode_all(paths, SMALL, "error", cache_dir)
    good = [index for index in range(150) if index not in (3, 149)]
    wanted = expected([paths[index] for index in good])
    tried = spy_on_decoding(monkeypatch)
    decoded = decode_all(paths, SMALL, "skip", cache_dir)
    if where == "folder":  # of the first pass, only the unreadable files are tried again
        assert tried == [paths[3], paths[149]]
    assert decoded.kept == good
    assert torch.equal(decoded.images, wanted)
    assert decoded.bad == [str(paths[3]), str(paths[149])]
    assert "2 of 150 files left out" in caplog.text


def test_skipping_all_images_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("no image")
    for cache_dir in ("none", str(tmp_path / "cache"), str(tmp_path / "cache")):
        with pytest.raises(DataError, match=r"1 of 1 files: no image is left"):
            decode_all([path], SMALL, "skip", cache_dir)


def test_parallel_runs_decode_once(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = spy_on_decoding(monkeypatch)
    results = []
    builders = [
        threading.Thread(
            target=lambda: results.append(decode_all(paths, SMALL, "error", str(tmp_path / "c")))
        )
        for _ in range(3)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(tried) == 150
    assert all(torch.equal(result.images, expected(paths)) for result in results)
    assert len(results) == 3


def test_a_killed_build_leaves_no_array(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path, preprocessing: Preprocessing, *, repair: bool) -> Decoded:
        if path == paths[100]:
            raise KeyboardInterrupt
        return decode_file(path, preprocessing, repair=repair)

    with monkeypatch.context() as patch:
        patch.setattr(decode_files, "decode_file", die)
        with pytest.raises(KeyboardInterrupt):
            decode_all(paths, SMALL, "error", str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*.npy"))
    assert torch.equal(
        decode_all(paths, SMALL, "error", str(tmp_path / "cache")).images, expected(paths)
    )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, paths: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data\.cache_dir: cannot write .*data\.cache_dir=none"):
        decode_all(paths, SMALL, "error", str(tmp_path / "file"))


def test_wrong_settings_are_refused(paths: list[Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.on_bad_image: expected error, skip or repair, got 'drop'"
    ):
        decode_all(paths, SMALL, "drop", "none")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no image to decode"):
        decode_all([], SMALL, "error", "none")
