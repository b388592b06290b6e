"""The checks before trial 0: every choice composes, every pair of config-group choices builds."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.composition import shown
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.engines.engine import RETRIED, Ended, Engine, Job, Reported
from visionsweep.sweep.engines.job import CHECK_KEY

log = logging.getLogger(__name__)

_RETRIES = 2


def check_choices(sweep: Sweep, engine: Engine, requests: Sequence[int] = ()) -> list[Any]:
    """Compose each choice and each pair of group choices; build them with `hydra.sweeper.check`.

    Returns what the check returned for each; fewer after a request to stop. Raises `ConfigError`
    with the overrides of the first one that fails.
    """
    probes = []
    for params in sweep.space.probes(sweep.composer.is_group):
        if requests:
            return []
        probes.append(sweep.composer.check(params))
    check = sweep.settings.check
    if check is None:
        return []
    log.info("checking %d configurations", len(probes))
    waiting = [Job(f"check-{i}", i, overrides, check=check) for i, overrides in enumerate(probes)]
    jobs = {job.key: job for job in waiting}
    results: list[Any] = []
    while len(results) < len(probes) and not requests:
        while waiting and engine.num_free:
            engine.submit(waiting.pop(0))
        for event in engine.poll(1.0):
            if isinstance(event, Reported):
                engine.answer(event.key, prune=False)
            elif isinstance(event, Ended):
                job = jobs[event.key]
                if event.state == "completed":
                    results.append(event.value)
                elif event.state in RETRIED and job.attempt < _RETRIES:
                    # This says nothing about the configuration.
                    jobs[job.key] = replace(job, attempt=job.attempt + 1)
                    waiting.append(jobs[job.key])
                else:
                    error = str(event.error)
                    is_of_check = error.startswith(CHECK_KEY)  # no choice is to blame
                    raise ConfigError(error if is_of_check else f"{shown(job.overrides)}: {error}")
    return results
