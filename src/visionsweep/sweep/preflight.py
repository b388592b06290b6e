"""What is found before trial 0: every choice composes, and every pair of config-group choices builds."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.composition import shown
from visionsweep.sweep.engines.engine import RETRIED, Ended, Engine, Job, Reported
from visionsweep.sweep.engines.job import CHECK_KEY

if TYPE_CHECKING:
    from visionsweep.sweep.command import Sweep

log = logging.getLogger(__name__)

_RETRIES = 2


def check_choices(
    sweep: "Sweep", engine: Engine | None, interrupts: Callable[[], int] = lambda: 0
) -> list[Any]:
    """Compose each choice of each dimension and each pair of group choices; build them with `hydra.sweeper.check`.

    Returns what the check returned for each; fewer after Ctrl-C, which `interrupts` counts. Raises `ConfigError` with
    the overrides of the first one that fails.
    """
    probes = []
    for params in sweep.space.probes(sweep.composer.is_group):
        if interrupts():
            return []
        probes.append(sweep.composer.check(params))
    if sweep.settings.check is None or engine is None:
        return []
    log.info("checking %d configurations", len(probes))
    waiting = [
        Job(f"check-{i}", i, overrides, check=sweep.settings.check)
        for i, overrides in enumerate(probes)
    ]
    by_key = {job.key: job for job in waiting}
    found: list[Any] = []
    while len(found) < len(probes) and not interrupts():
        while waiting and engine.num_free:
            engine.submit(waiting.pop(0))
        for event in engine.poll(1.0):
            if isinstance(event, Reported):
                engine.answer(event.key, prune=False)
            if not isinstance(event, Ended):
                continue
            job = by_key[event.key]
            if (
                event.state in RETRIED and job.attempt < _RETRIES
            ):  # it says nothing about the configuration
                by_key[job.key] = replace(job, attempt=job.attempt + 1)
                waiting.append(by_key[job.key])
                continue
            if event.state != "completed":
                error = str(event.error)  # of the check's own name it is no choice's fault
                raise ConfigError(
                    error if error.startswith(CHECK_KEY) else f"{shown(job.overrides)}: {error}"
                )
            found.append(event.value)
    return found
