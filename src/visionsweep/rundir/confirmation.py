"""`confirmation.json`: the answer of a confirmation, in its directory and in that of the study.

Imports no torch.
"""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import CONFIRMATION
from visionsweep.text import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConfirmationRecord:
    """What a confirmation found."""

    study: str  # the directory of the study
    confirmation: str  # the directory of the sweep that confirmed it
    seeds: int  # new ones, of each configuration
    max_seeds: int
    error: float  # probability that any verdict of any look is wrong, at most
    confirmed: str | None  # the name of the configuration, or None
    confirmed_trial: int | None  # of the confirmation; 0 is the baseline
    study_trials: list[int | None]  # by trial of the confirmation: the trial of the study
    lines: list[str]  # the answer in words
    # per candidate: trial, params, difference to the baseline, interval, p_value_of_this_look
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    test: list[float] = field(default_factory=list)  # the objective on the test split, per run


def write_confirmation(record: ConfirmationRecord) -> None:
    """Write the record to both directories; to that of the study if it still exists."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
    write_text(Path(record.confirmation) / CONFIRMATION, text)
    if Path(record.study).is_dir():
        write_text(Path(record.study) / CONFIRMATION, text)


def read_confirmation(directory: Path) -> ConfirmationRecord | None:
    """Return the record in a directory; None if there is none, or a damaged one (a warning)."""
    path = directory / CONFIRMATION
    try:
        return ConfirmationRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s: damaged (%s)", path, first_line(error))
        return None
