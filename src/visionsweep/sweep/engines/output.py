"""Where a job's output goes: file descriptors 1 and 2 lead to its log file; logging writes once."""

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

_TERMINAL_HANDLERS = ("StreamHandler", "RichHandler")


class Output:
    """Redirects all output of this process: prints, warnings, and what C code writes."""

    def __init__(self) -> None:
        self._own = (os.dup(1), os.dup(2))

    @contextlib.contextmanager
    def to(self, path: Path) -> Iterator[None]:
        """Append all output to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _redirect((log, log))
        finally:
            os.close(log)
        try:
            yield
        finally:
            _redirect(self._own)


def _redirect(targets: tuple[int, int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        # the app may have replaced or closed them
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)  # C's own buffers
    for descriptor, target in zip((1, 2), targets, strict=True):
        os.dup2(target, descriptor)


def log_path(config: DictConfig, directory: Path) -> Path:
    """Return a job's log file: that of Hydra's job logging below its directory, else `JOB.log`."""
    logging_config = _plain(config.hydra.job_logging)
    for handler in (logging_config.get("handlers") or {}).values():
        filename = handler.get("filename")
        if filename is not None and (path := Path(filename).absolute()).is_relative_to(directory):
            return path
    return directory / f"{config.hydra.job.name}.log"


@contextlib.contextmanager
def job_logging(config: DictConfig, whitelist: Any) -> Iterator[None]:
    """Log as Hydra's job logging says, but not to the terminal, which leads to the log file.

    The handlers are removed at the end: later lines do not belong to this job.
    """
    logging_config = config.hydra.job_logging
    if logging_config is not None:
        logging_config = OmegaConf.create(_without_terminal(_plain(logging_config)))
    configure_log(logging_config, config.hydra.verbose, execution_whitelist=whitelist)
    try:
        yield
    finally:
        root = logging.getLogger()
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()


def _without_terminal(logging_config: dict[str, Any]) -> dict[str, Any]:
    """Return a logging config without terminal handlers; unchanged if it writes to no file."""
    handlers = logging_config.get("handlers") or {}
    if not any("filename" in handler for handler in handlers.values()):
        return logging_config
    kept = {name: handler for name, handler in handlers.items() if not _is_terminal(handler)}

    def trimmed(logger: Any) -> Any:
        if not isinstance(logger, dict) or not logger.get("handlers"):
            return logger
        return {**logger, "handlers": [name for name in logger["handlers"] if name in kept]}

    loggers = logging_config.get("loggers") or {}
    return {
        **logging_config,
        "handlers": kept,
        "root": trimmed(logging_config.get("root")),
        "loggers": {name: trimmed(logger) for name, logger in loggers.items()},
    }


def _is_terminal(handler: dict[str, Any]) -> bool:
    kind = str(handler.get("class") or handler.get("()")).rpartition(".")[2]
    stream = str(handler.get("stream", "ext://sys.stderr"))
    return kind in _TERMINAL_HANDLERS and stream.startswith("ext://sys.std")


def _plain(node: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}
