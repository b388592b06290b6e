"""The process that sends a run or sweep to MLflow: `python -m visionsweep.tracking.uploader DIR`.

The first line of stdin is the tracking URI, which may hold a password. The parent keeps the other
end of stdin: the upload ends when it is closed and everything is sent. Progress goes to stdout as
JSON lines. Only this process and `sync` import MLflow, through `directory`.
"""

import argparse
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from visionsweep.masking import mask_logs
from visionsweep.text import first_line
from visionsweep.tracking.ack import num_behind

if TYPE_CHECKING:
    from visionsweep.tracking.directory import DirectoryReplay

POLL_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
MAX_CLOSING_PAUSE_SECONDS = 5.0  # somebody waits

Report = Callable[[int, str | None], None]  # records behind, error

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Send until stdin is closed and all is sent (0), `--wait` seconds later (1), or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m visionsweep.tracking.uploader")
    parser.add_argument("directory", type=Path, help="a run's directory, or a sweep's")
    parser.add_argument("--experiment", help="MLflow experiment; default: the one in the journal")
    parser.add_argument(
        "--wait", type=float, default=60.0, help="seconds to continue after stdin is closed"
    )
    args = parser.parse_args(argv)
    # Training first: without this, the import of mlflow halved the speed of the first epochs on
    # two cores.
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    mask_logs()
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.captureWarnings(True)
    uri = _read_uri()
    report = _reporter(_claim_stdout())
    prepare_environment()

    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store

    replay = DirectoryReplay(args.directory, Store(uri), args.experiment)
    return upload(replay, args.wait, report)


def prepare_environment() -> None:
    """Make MLflow fail fast and keep quiet; call it before the first `import mlflow`.

    With its defaults, one call to a dead server blocks for 245 s. The user's settings win.
    """
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def upload(replay: "DirectoryReplay", wait_seconds: float, report: Report) -> int:
    """Send whatever appears, with growing pauses while the store does not answer."""
    deadline: float | None = None
    pause, num_done = POLL_SECONDS, 0
    replay.hold_checkpoints(True)
    while True:
        try:
            replay.advance()
            is_done = deadline is not None and replay.close(ignore_pid=os.getppid())
            deleted = replay.deleted
            report(_num_behind(replay) if deleted else replay.behind, deleted)
            if is_done:
                return 0
            pause = POLL_SECONDS
        except Exception as error:
            log.exception("the store refused; trying again")
            report(_num_behind(replay), first_line(error))
            has_progressed, num_done = replay.num_done > num_done, replay.num_done
            pause = 1.0 if has_progressed else max(1.0, min(2 * pause, MAX_PAUSE_SECONDS))
        if deadline is None:
            if _is_closed_within(pause):
                deadline = time.monotonic() + wait_seconds
                replay.hold_checkpoints(False)
                pause = POLL_SECONDS
        elif time.monotonic() > deadline:
            return 1
        else:
            time.sleep(min(pause, MAX_CLOSING_PAUSE_SECONDS))


def _num_behind(replay: "DirectoryReplay") -> int:
    return num_behind(replay.directory, replay.store.uri)


def _read_uri() -> str:
    """Return the first line of stdin, byte by byte: what follows is not ours to take."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def _is_closed_within(seconds: float) -> bool:
    """Return whether the parent closes stdin in time; drops what it writes there."""
    stdin = 0
    readable, _, _ = select.select([stdin], [], [], seconds)
    return bool(readable) and os.read(stdin, 4096) == b""


def _claim_stdout() -> int:
    """Return a descriptor of stdout; what libraries print now goes to stderr, the log."""
    mine = os.dup(1)
    os.dup2(2, 1)
    return mine


def _reporter(descriptor: int) -> Report:
    last: list[tuple[int, str | None]] = []

    def report(behind: int, error: str | None) -> None:
        if last == [(behind, error)]:
            return
        last[:] = [(behind, error)]
        try:
            os.write(descriptor, (json.dumps({"behind": behind, "error": error}) + "\n").encode())
        except BrokenPipeError:
            log.warning("the parent is gone")

    return report


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
