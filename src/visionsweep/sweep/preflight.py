"""The checks before trial 0: every choice composes, every pair of config-group choices builds."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.composition import shown
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.engines.engine import RETRIED, Check, Ended, Engine, Job, Reported
from visionsweep.sweep.space.grid import MAX_PAIRS, SAMPLED_PAIRS

log = logging.getLogger(__name__)

_RETRIES = 2
_PROGRESS_SECONDS = 10.0


Overrides = tuple[str, ...]


def check_choices(
    sweep: Sweep, engine: Engine, requests: Sequence[int] = ()
) -> dict[Overrides, Any]:
    """Compose each choice and each pair of group choices; build them with `hydra.sweeper.check`.

    Returns what the check returned for each job; fewer after a request to stop. Raises
    `ConfigError` with the overrides of the first one that fails.
    """
    candidates = sweep.space.probes(sweep.composer.is_group)
    check, evaluate = sweep.settings.check, sweep.settings.evaluate
    num_pairs = sweep.space.num_pairs(sweep.composer.is_group)
    if num_pairs > MAX_PAIRS:
        log.info(
            "checking each choice, and %d of the %d pairs of config groups",
            *(SAMPLED_PAIRS, num_pairs),
        )
    elif check is not None:
        log.info("checking %d configurations", len(candidates))
    progress = _Progress("composed", len(candidates))
    probes = []
    for params in candidates:
        if requests:
            return {}
        probes.append(sweep.composer.check(params))
        progress.show(len(probes))
    if evaluate is not None:  # it is called when all has been trained
        loaded = Check(evaluate, "hydra.sweeper.evaluate", is_called=False)
        build(probes[:1], loaded, engine, requests)
    return {} if check is None else build(probes, Check(check), engine, requests)


def build(
    probes: Sequence[Overrides], check: Check, engine: Engine, requests: Sequence[int]
) -> dict[Overrides, Any]:
    """Have the workers check each configuration; return what the checks returned."""
    probes = list(dict.fromkeys(probes))
    progress = _Progress("built", len(probes))
    waiting = [Job(f"check-{i}", i, overrides, check=check) for i, overrides in enumerate(probes)]
    jobs = {job.key: job for job in waiting}
    results: dict[Overrides, Any] = {}
    while len(results) < len(probes) and not requests:
        while waiting and engine.num_free:
            engine.submit(waiting.pop(0))
        for event in engine.poll(1.0):
            if isinstance(event, Reported):
                engine.answer(event.key, prune=False)
            elif isinstance(event, Ended):
                job = jobs[event.key]
                if event.state == "completed":
                    results[job.overrides] = event.value
                    progress.show(len(results))
                elif event.state in RETRIED and job.attempt < _RETRIES:
                    # This says nothing about the configuration.
                    jobs[job.key] = replace(job, attempt=job.attempt + 1)
                    waiting.append(jobs[job.key])
                else:
                    error = str(event.error)
                    is_of_check = error.startswith(str(check))  # no choice is to blame
                    raise ConfigError(error if is_of_check else f"{shown(job.overrides)}: {error}")
    return results


class _Progress:
    """Logs a line now and then while something takes long."""

    def __init__(self, verb: str, total: int) -> None:
        self._verb = verb
        self._total = total
        self._shown = time.monotonic()

    def show(self, count: int) -> None:
        """Log how many are done, unless a line was logged just before."""
        if time.monotonic() - self._shown >= _PROGRESS_SECONDS:
            self._shown = time.monotonic()
            log.info("%s %d of %d configurations", self._verb, count, self._total)
