"""Log lines and tracebacks of any writer hold no password."""

import io
import logging
import sys

import pytest

from visionsweep.masking import mask_logs


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what a plain handler writes after `mask_logs`."""
    factory = logging.getLogRecordFactory()
    monkeypatch.setattr(logging, "_logRecordFactory", factory)  # restored at the end
    monkeypatch.setattr("sys.excepthook", sys.__excepthook__)
    mask_logs()
    return io.StringIO()


def test_a_message_its_arguments_and_its_traceback_are_masked(log: io.StringIO) -> None:
    handler = logging.StreamHandler(log)
    logger = logging.Logger("foreign")
    logger.addHandler(handler)
    try:
        raise ValueError("cannot reach http://bob:s3cret@lab")
    except ValueError:
        logger.exception("at %s", "http://bob:s3cret@lab")
    text = log.getvalue()
    assert "s3cret" not in text
    assert text.startswith("at http://bob:***@lab\nTraceback")
    assert text.endswith("ValueError: cannot reach http://bob:***@lab\n")


def test_the_traceback_that_ends_a_process_is_masked(
    log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ValueError("http://bob:s3cret@lab")
    sys.excepthook(ValueError, error, None)
    assert capsys.readouterr().err == "ValueError: http://bob:***@lab\n"
