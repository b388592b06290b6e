"""The complete trials of another sweep, read from its study."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.trial import TrialState

from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import STUDY
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.space.zip_names import expand
from visionsweep.sweep.storage import open_storage
from visionsweep.sweep.stored import Stored
from visionsweep.sweep.study import NOTES
from visionsweep.text import first_line, mask_passwords, sqlite_url


@dataclass(frozen=True)
class PastTrial:
    """A complete trial of another sweep."""

    number: int
    params: dict[str, Any]
    values: list[float]
    num_seeds: int = 1


def complete_trials(
    directory: Path, other: Stored, settings: SweepSettings, key: str, requests: Sequence[int] = ()
) -> list[PastTrial]:
    """Return the complete trials of the sweep in `directory`, by number.

    ``settings``: of the sweep that reads; ``key``: the setting that names the directory; see
    `open_storage` for ``requests``. Raises `ConfigError` if the direction differs, or the study
    is lost.
    """
    if other.search["direction"] != list(settings.directions):
        raise ConfigError(f"{key}: {directory} has another direction {other.search['direction']}")
    storage = open_storage(_storage_url(settings.storage, other, directory, key), requests)
    name = other.search["study_name"] or other.study_name
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        raise ConfigError(
            f"{key}: {directory} has lost its study '{name}'; "
            f"restore its storage, or set {key}=null"
        ) from None
    trials = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
    return [
        PastTrial(
            *(trial.number, expand(trial.params), list(trial.values)),
            num_seeds=len(trial.user_attrs.get(NOTES, {}).get("seed_values", [0])),
        )
        for trial in trials
    ]


def _storage_url(own: str | None, other: Stored, directory: Path, key: str) -> str:
    stored = other.search["storage"]
    if stored is None:
        return sqlite_url(directory / STUDY)
    try:
        url = str(OmegaConf.create({"url": stored}).url)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{key}: {directory} is stored at {stored}: {first_line(error)}"
        ) from error
    # The stored one has no password.
    return own if own is not None and mask_passwords(own) == mask_passwords(url) else url
