"""The data of a sweep, by the digests that `hydra.sweeper.check` returns of it.

Data that changes under a study, with the same names and other contents, is noticed at a resume.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.composition import shown
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.engines.engine import Check, Engine
from visionsweep.sweep.preflight import Overrides, build

log = logging.getLogger(__name__)

_DIGEST = "data"  # in what the check returns


def digests_of(checked: Mapping[Overrides, Any]) -> list[dict[str, Any]]:
    """Return each digest once, with the overrides of a job that has this data."""
    found: dict[str, Overrides] = {}
    for overrides, result in checked.items():
        if isinstance(result, dict) and _DIGEST in result:
            found.setdefault(str(result[_DIGEST]), overrides)
    return [{"digest": digest, "overrides": list(found[digest])} for digest in found]


def check_data(sweep: Sweep, engine: Engine, num_trials: int, requests: Sequence[int]) -> Sweep:
    """Return the resumed sweep, whose data must be that of its `num_trials` trials.

    Raises `ConfigError` for other data unless `hydra.sweeper.on_change` is extend. Then the trials
    so far are those of other data.
    """
    check, stored = sweep.settings.check, sweep.current.data
    if check is None or not stored:
        return sweep
    jobs = [tuple(item["overrides"]) for item in stored]
    results = build(jobs, Check(check), engine, requests)
    now = [
        {**item, "digest": _digest(results.get(job))}
        for item, job in zip(stored, jobs, strict=True)
    ]
    if requests or now == stored:
        return sweep
    lines = "\n".join(
        f"  {shown(after['overrides'])}: data {before['digest']} -> {after['digest']}"
        for before, after in zip(stored, now, strict=True)
        if before != after
    )
    text = f"{sweep.sweep_dir} was started with other data (digests, stored -> now)"
    if sweep.settings.on_change == "refuse":
        raise ConfigError(
            f"{text}. Nothing was run:\n{lines}\n  Restore the data, choose another study, or add "
            "hydra.sweeper.on_change=extend to resume with it."
        )
    log.warning("%s:\n%s", text, lines)
    return replace(sweep, current=replace(sweep.current, data=now, valid_from=num_trials))


def _digest(result: Any) -> str | None:
    return str(result[_DIGEST]) if isinstance(result, dict) and _DIGEST in result else None
