import os
import socket
import time

import pytest

from visionsweep.tracking.writer import is_writer_alive

HERE = {"host": socket.gethostname(), "pid": os.getpid()}


@pytest.mark.parametrize(("age", "is_alive"), [(60, True), (600, False), (None, True)])
def test_a_run_on_another_host_is_dead_without_a_heartbeat(tmp_path, age, is_alive):
    if age is not None:
        (tmp_path / ".alive").touch()
        os.utime(tmp_path / ".alive", (time.time() - age,) * 2)
    assert is_writer_alive(tmp_path, {"host": "elsewhere", "pid": 1, "time": 0}) == is_alive


@pytest.mark.parametrize(
    ("writer", "is_alive"),
    [
        (HERE | {"time": 1000 * time.time()}, True),
        (HERE | {"time": 0}, False),  # the pid was reused: this process is younger
        (HERE | {"pid": 2**22 + 1, "time": 0}, False),
        ({}, False),
    ],
)
def test_a_process_on_this_host_is_known_by_pid_and_birth(writer, is_alive, tmp_path):
    assert is_writer_alive(tmp_path, writer) == is_alive
