"""`hydra.sweeper.warm_start`: the complete trials of another sweep, which inform the sampler."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.trial import TrialState

from visionsweep.errors import ConfigError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import SWEEP, WARM_START
from visionsweep.sweep.definition import Sweep, study_url
from visionsweep.sweep.storage import open_storage
from visionsweep.sweep.stored import Stored, read_stored
from visionsweep.text import first_line, mask_passwords

log = logging.getLogger(__name__)

_KEY = "hydra.sweeper.warm_start"


def load_history(
    sweep: Sweep, requests: Sequence[int] = ()
) -> list[tuple[dict[str, Any], list[float]]]:
    """Return parameters and values of the trials; see `open_storage` for ``requests``.

    They are copied to this sweep's directory, since the other sweep may grow or be deleted.
    """
    source = sweep.settings.warm_start
    if source is None:
        return []
    snapshot = sweep.sweep_dir / WARM_START
    kept = json.loads(snapshot.read_text(encoding="utf-8")) if snapshot.exists() else None
    if kept is None or kept["warm_start"] != source:  # on_change=extend may name another one
        kept = {"warm_start": source, "trials": _read_history(sweep, Path(source), requests)}
        write_text(snapshot, json.dumps(kept))
    return [(dict(params), list(values)) for params, values in kept["trials"]]


def _read_history(
    sweep: Sweep, directory: Path, requests: Sequence[int]
) -> list[tuple[dict[str, Any], list[float]]]:
    other = read_stored(directory)
    if other is None:
        raise ConfigError(f"{_KEY}: {directory} holds no sweep (no {SWEEP}); give multirun/STUDY")
    if other.search["direction"] != list(sweep.settings.directions):
        raise ConfigError(f"{_KEY}: {directory} has another direction {other.search['direction']}")
    storage = open_storage(_storage_url(sweep, other, directory), requests)
    name = other.search["study_name"] or other.study_name
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        raise ConfigError(
            f"{_KEY}: {directory} has lost its study '{name}'; "
            f"restore its storage, or set {_KEY}=null"
        ) from None
    trials = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
    log.info("warm start: %d complete trials of %s", len(trials), directory)
    return [(trial.params, list(trial.values)) for trial in trials]


def _storage_url(sweep: Sweep, other: Stored, directory: Path) -> str:
    own, stored = sweep.settings.storage, other.search["storage"]
    if stored is None:
        return study_url(directory)
    try:
        url = str(OmegaConf.create({"url": stored}).url)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{_KEY}: {directory} is stored at {stored}: {first_line(error)}"
        ) from error
    # The stored one has no password.
    return own if own is not None and mask_passwords(own) == mask_passwords(url) else url
