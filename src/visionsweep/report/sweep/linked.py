"""Parameters that move together (a zip of the sweep): one choice, and one importance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.text import param_text


def followers(space: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the first parameter of each zip -> the others, which move with it."""
    found: dict[str, list[str]] = {}
    for key, described in space.items():
        listed = described.get("with")
        others = (
            [other for other in map(str, listed) if other in space]
            if isinstance(listed, list)
            else []
        )
        if others and not any(key in moved for moved in found.values()):
            found[key] = others
    return found


def merged(record: SweepRecord) -> SweepRecord:
    """Return the record with one parameter for each zip, under the name of its first one."""
    zips = followers(record.space)
    if not zips:
        return record
    moved = {key for others in zips.values() for key in others}
    space = {key: described for key, described in record.space.items() if key not in moved}
    trials = []
    for trial in record.trials:
        params = {key: value for key, value in trial.params.items() if key not in moved}
        params |= {
            first: _position(trial, [first, *zips[first]]) for first in zips if first in params
        }
        trials.append(replace(trial, params=params))
    for first in zips:
        seen = dict.fromkeys(trial.params[first] for trial in trials if first in trial.params)
        space[first] = {**space[first], "choices": list(seen)}
    return replace(record, space=space, trials=trials)


def _position(trial: SweptTrial, keys: list[str]) -> str:
    return ", ".join(param_text(trial.params.get(key)) for key in keys)
