"""`hydra.sweeper.warm_start`: the complete trials of other sweeps, which inform the sampler."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from visionsweep.errors import ConfigError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import SWEEP, WARM_START
from visionsweep.rundir.usable import usable
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.past_trials import complete_trials
from visionsweep.sweep.stored import Stored, read_stored
from visionsweep.text import first_line

log = logging.getLogger(__name__)

_KEY = "hydra.sweeper.warm_start"


Trials = list[tuple[dict[str, Any], list[float]]]


def load_history(sweep: Sweep, requests: Sequence[int] = ()) -> Trials:
    """Return parameters and values of the trials; see `open_storage` for ``requests``.

    They are copied to this sweep's directory, since the other sweeps may grow or be deleted.
    """
    sources = list(sweep.settings.warm_start)
    if not sources:
        return []
    snapshot = sweep.sweep_dir / WARM_START
    trials = _read_snapshot(snapshot, sources)
    if trials is None:
        trials = [t for source in sources for t in _read_history(sweep, Path(source), requests)]
        write_text(snapshot, json.dumps({"warm_start": sources, "trials": trials}))
    return trials


def _read_snapshot(path: Path, sources: list[str]) -> Trials | None:
    """Return the trials copied from `sources`; None if there are none yet, or of other sweeps."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["warm_start"] not in (sources, "".join(sources)):  # an earlier version: text
            return None  # on_change=extend may name another one
        return [(dict(params), list(map(float, values))) for params, values in kept["trials"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        named = ", ".join(sources)
        log.warning("%s is damaged (%s): reading %s again", path, first_line(error), named)
        return None


def _read_history(sweep: Sweep, directory: Path, requests: Sequence[int]) -> Trials:
    with usable(directory, _KEY):
        other = read_stored(directory)
    if other is None:
        raise ConfigError(f"{_KEY}: {directory} holds no sweep (no {SWEEP}); give multirun/STUDY")
    _require_same_metric(sweep, other, directory)
    trials = complete_trials(directory, other, sweep.settings, _KEY, requests)
    log.info("warm start: %d complete trials of %s", len(trials), directory)
    return [(trial.params, trial.values) for trial in trials]


def _require_same_metric(sweep: Sweep, other: Stored, directory: Path) -> None:
    key = sweep.settings.metric_key
    own = sweep.composer.value_of(key)
    theirs = OmegaConf.select(OmegaConf.create(other.config), key) if key else None
    if own is not None and theirs is not None and theirs != own:
        raise ConfigError(
            f"{_KEY}: {directory} searched for the best {theirs}, this sweep for the best {own}: "
            "the values cannot be compared"
        )
