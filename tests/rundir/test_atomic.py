"""Written files: whole in their place, or through what stands there, on any file system."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from visionsweep.rundir.atomic import open_output, write_text


def write_output(path: Path, text: str) -> None:
    with open_output(path) as file:
        file.write(text.encode())


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    write_output(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_is_written_through(is_dangling: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "out.csv"
    if not is_dangling:
        target.write_text("old and longer")
    link.symlink_to(target)
    write_output(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_link_among_the_files_of_a_run_is_replaced(tmp_path: Path) -> None:
    theirs, mine = tmp_path / "config.yaml", tmp_path / "mine"
    mine.write_text("precious")
    theirs.symlink_to(mine)
    write_text(theirs, "new")
    assert mine.read_text() == "precious"
    assert not theirs.is_symlink()


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_output(pipe, "new")
    reader.join()
    assert got == ["new"]
    assert pipe.is_fifo()


def test_a_failed_output_writes_nothing(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    for path in (target, link):
        with pytest.raises(ValueError, match="stop"), open_output(path) as file:  # noqa: PT012
            file.write(b"new")
            file.flush()
            raise ValueError("stop")
        assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o20666, os.makedev(1, 3))  # as /dev/null
    except OSError:
        pytest.skip("only root may make a device")
    write_output(device, "new")
    assert device.is_char_device()


def test_stdout_is_written_to_in_its_order(tmp_path: Path) -> None:
    """Opened by its name, a file that stdout was redirected to would be written from its start."""
    path = tmp_path / "redirected"
    program = (
        "import os; from pathlib import Path; from visionsweep.rundir.atomic import open_output\n"
        "os.write(1, b'before '); context = open_output(Path('/dev/stdout'))\n"
        "with context as file: file.write(b'rows ')\n"
        "os.write(1, b'after')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with path.open("wb") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout, env=environment, check=True)
    assert path.read_text() == "before rows after"


@pytest.mark.parametrize("call", ["fsync", "chmod"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
def test_what_a_file_system_cannot_do_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


def test_a_disk_that_loses_data_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write_text(tmp_path / "file", "before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("\N{SNOWMAN}" * 85)  # 255 bytes
    write_text(path, "text")
    assert path.read_text() == "text"
