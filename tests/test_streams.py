"""Standard output and error that are closed, lead nowhere, or cannot show a character."""

import subprocess
import sys
from pathlib import Path

import pytest

TALK = """
import logging, os, sys
from visionsweep.streams import keep_streams
keep_streams()
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
with open("data", "w") as file:
    assert file.fileno() > 2  # else what is printed would go into it
    for _ in range(1000):
        print("a line \\u2713 \\udcff")
        print("an error", file=sys.stderr)
        logging.info("a record")
assert not sys.stderr.isatty()
"""


@pytest.mark.parametrize(
    "streams", [">&- 2>&-", "<&- >&- 2>&-", "2>&-", ">/dev/full 2>&1", "| true", "2>&1 | head -1"]
)
def test_no_stream_ends_the_process(tmp_path: Path, streams: str) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    command = f"set -o pipefail; {sys.executable} talk.py {streams} && echo done >> end"
    shell = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "end").exists(), shell.stderr
    assert (tmp_path / "data").read_text() == ""
    assert "Traceback" not in shell.stderr
    assert "Logging error" not in shell.stdout + shell.stderr


def test_a_character_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    done = subprocess.run(
        [sys.executable, "talk.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("a line \\u2713 \\udcff\n")
    assert done.stderr.count("an error\n") == 1000
