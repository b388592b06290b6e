"""`hydra.sweeper.warm_start`: the complete trials of another sweep, which inform the sampler."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import SWEEP, WARM_START
from visionsweep.rundir.usable import usable
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.past_trials import complete_trials
from visionsweep.sweep.stored import read_stored
from visionsweep.text import first_line

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
    trials = _read_snapshot(snapshot, source)
    if trials is None:
        trials = _read_history(sweep, Path(source), requests)
        write_text(snapshot, json.dumps({"warm_start": source, "trials": trials}))
    return trials


def _read_snapshot(path: Path, source: str) -> list[tuple[dict[str, Any], list[float]]] | None:
    """Return the trials copied from `source`; None if there are none yet, or of another sweep."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["warm_start"] != source:  # on_change=extend may name another one
            return None
        return [(dict(params), list(map(float, values))) for params, values in kept["trials"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s): reading %s again", path, first_line(error), source)
        return None


def _read_history(
    sweep: Sweep, directory: Path, requests: Sequence[int]
) -> list[tuple[dict[str, Any], list[float]]]:
    with usable(directory, _KEY):
        other = read_stored(directory)
    if other is None:
        raise ConfigError(f"{_KEY}: {directory} holds no sweep (no {SWEEP}); give multirun/STUDY")
    trials = complete_trials(directory, other, sweep.settings, _KEY, requests)
    log.info("warm start: %d complete trials of %s", len(trials), directory)
    return [(trial.params, trial.values) for trial in trials]
