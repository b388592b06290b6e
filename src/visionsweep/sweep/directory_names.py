"""An app's own names of its trials' directories (`hydra.sweep.subdir`), as links.

A trial's directory is its number, for whoever reads the sweep; `trial_7` is a link to `7`. Of
trials with one name, the first has the link.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from visionsweep.sweep.composition import Composer
from visionsweep.sweep.trial_record import TrialRecord

log = logging.getLogger(__name__)


class DirectoryNames:
    """Makes the links of trials that have a directory, each once."""

    def __init__(self, sweep_dir: Path, composer: Composer) -> None:
        self._sweep_dir = sweep_dir
        self._composer = composer
        self._seen: set[int] = set()

    def update(self, trials: Iterable[TrialRecord]) -> None:
        """Link the directories of trials that have started."""
        if not self._composer.names_directories:
            return
        for trial in trials:
            directory = self._sweep_dir / trial.directory
            is_new = trial.number not in self._seen and trial.duplicate_of is None
            if is_new and directory.is_dir():
                self._seen.add(trial.number)
                name = self._composer.directory_name(trial.number, trial.params)
                if PurePath(name).parts[:1] not in ((), (trial.directory,)):
                    _link(self._sweep_dir / name, directory)


def _link(link: Path, directory: Path) -> None:
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(directory, link.parent))
    except FileExistsError:
        pass
    except OSError as error:
        log.warning("%s: cannot link to %s (%s)", link, directory, error.strerror)
