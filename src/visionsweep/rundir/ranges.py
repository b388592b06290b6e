"""`ranges.json`: the ranges of a sweep that may end too early, and the command that widens them.

Imports no torch.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import RANGES
from visionsweep.text import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranges:
    """What to say of the ranges of a sweep that is over."""

    lines: tuple[str, ...] = ()  # one per range
    command: str | None = None  # None: there is none to type


def write_ranges(directory: Path, ranges: Ranges) -> None:
    """Write the file; remove that of an earlier command if there is nothing to say."""
    path = directory / RANGES
    if ranges.lines:
        write_text(path, json.dumps(asdict(ranges), indent=2, ensure_ascii=False) + "\n")
    else:
        path.unlink(missing_ok=True)


def read_ranges(directory: Path) -> Ranges:
    """Return what the file says; nothing if there is none, or a damaged one (a warning)."""
    path = directory / RANGES
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        command = stored["command"]
        return Ranges(tuple(map(str, stored["lines"])), None if command is None else str(command))
    except (FileNotFoundError, NotADirectoryError):
        return Ranges()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s: damaged (%s)", path, first_line(error))
        return Ranges()
