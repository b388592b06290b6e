"""`hydra.sweeper.budget_minutes`: the time that a study may take, and what it was spent on."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.pace import Pace, Part
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.thaw import Thaw
from visionsweep.text import counted

KEY = "hydra.sweeper.budget_minutes"
NO_LIMIT = 10**9  # n_trials of a sweep that only its time ends
# Of the controller's time, for the summary after the last trial: it is part of the budget.
_END_SHARE, _END_SECONDS = 0.02, 3.0


def within_budget(settings: SweepSettings, typed: Iterable[str]) -> SweepSettings:
    """Return the settings of a sweep with a budget: it thaws, and its presets' n_trials is no end.

    ``typed``: the keys that the user typed. Returns `settings` without a budget. Raises
    `ConfigError` if it cannot be kept with the other settings.
    """
    minutes = settings.budget_minutes
    if minutes is None:
        return settings
    if not (0 < minutes < math.inf):
        raise ConfigError(f"{KEY}: expected minutes above 0, got {minutes:g}")
    keys = set(typed)
    if settings.timeout_seconds is not None:
        raise ConfigError(
            f"{KEY}: ends the sweep in time, and finishes its best trial before; remove "
            "hydra.sweeper.timeout_seconds, which does not"
        )
    if settings.confirm is not None:
        raise ConfigError(f"{KEY}: a confirmation trains every seed to its end; remove it")
    if len(settings.directions) > 1:
        raise ConfigError(
            f"{KEY}: finishes the best trial of one objective, but the sweep has "
            f"{len(settings.directions)}; set hydra.sweeper.timeout_seconds instead"
        )
    if settings.seeds > 1:
        raise ConfigError(
            f"{KEY}: gives its time to one seed per trial, got hydra.sweeper.seeds="
            f"{settings.seeds}; remove it, and compare the best trials afterwards with "
            "confirm=multirun/STUDY"
        )
    if settings.pruner_name != "Thaw":
        if "hydra/sweeper/pruner" in keys:
            raise ConfigError(
                f"{KEY}: pauses trials (hydra/sweeper/pruner=thaw), and cannot use the pruner "
                f"{settings.pruner_name}; remove hydra/sweeper/pruner"
            )
        thaw = {"_target_": f"{Thaw.__module__}.{Thaw.__qualname__}", **vars(Thaw())}
        settings = replace(settings, pruner=thaw)
    return settings if "hydra.sweeper.n_trials" in keys else replace(settings, n_trials=None)


@dataclass
class Spent:
    """Seconds that a study has taken; those of its workers by what they did."""

    seconds: float = 0.0  # of all commands
    slots: float = 0.0  # seconds of all workers
    first: float = 0.0  # first epochs of configurations
    on: float = 0.0  # later epochs
    finishing: float = 0.0  # of trials that were trained to their end because time ran short

    def line(self, minutes: float, num_trials: int) -> str:
        """Return what the minutes were spent on; what is no epoch is start-up, pauses, results."""
        slots = max(self.slots, 1e-9)
        parts = [100 * part / slots for part in (self.first, self.on, self.finishing)]
        first, on, finishing = parts
        return (
            f"budget: {self.seconds / 60:.2f} of {minutes:g} min used. Of the workers' time: "
            f"first epochs of {counted(num_trials, 'configuration')} {first:.0f} %, training on "
            f"{on:.0f} %, finishing the best {finishing:.0f} %, start-up, pauses and the rest "
            f"{max(100 - sum(parts), 0):.0f} %"
        )


class Budget:
    """The clock of a study with a budget."""

    def __init__(
        self,
        minutes: float,
        pace: Pace,
        num_slots: int,
        *,
        before: Mapping[str, Any] | None = None,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = print,
    ) -> None:
        """``before``: what `as_plain` returned at the end of the last command, if there was one.

        ``began``: since when time counts, by the clock; None: from now.
        """
        self.minutes, self.pace, self.num_slots, self.say = minutes, pace, num_slots, say
        self.clock = clock
        self._before = spent_before(before)
        pace.take_over((before or {}).get("pace", {}))
        self._now = Spent()
        self._began = clock() if began is None else began

    @property
    def seconds(self) -> float:
        """The whole budget."""
        return 60 * self.minutes

    def seconds_used(self) -> float:
        """Return what the study has taken so far, in all commands."""
        return self._before.seconds + self.clock() - self._began

    def seconds_left(self) -> float:
        """Return what is left for trials; below 0 when the time is over."""
        end = min(_END_SHARE * self.seconds, _END_SECONDS)
        return self.seconds - end - self.seconds_used()

    def add(self, number: int, part: Part, seconds: float, *, is_finishing: bool) -> None:
        """Take into account what a worker did."""
        if part == "first":
            self._now.first += self.pace.first_seconds(number)
        elif part == "epoch" and is_finishing:
            self._now.finishing += seconds
        elif part == "epoch":
            self._now.on += seconds

    def plan(self, begun: int, thaw: Thaw) -> str:
        """Return what to expect, after ``begun`` configurations have trained an epoch."""
        pace, left = self.pace, self.seconds_left()
        whole = pace.seconds_to_end(None)
        turn, thawed = pace.turn_seconds(None), pace.turn_seconds(None, 1)
        seconds = max(left - whole, 0.0) * self.num_slots
        screened = min(max(thaw.screen - begun, 0), seconds / turn)
        cycle = turn + (thaw.new_every - 1) * thawed
        expected = begun + screened + (seconds - screened * turn) / cycle
        minute = (self.seconds_used() + max(left - whole, 0.0)) / 60
        return (
            f"budget: {self.minutes:g} min; {pace.epoch_seconds():.2g} s per epoch, "
            f"{pace.num_runs * pace.epochs} epochs per trial; about {expected:.0f} "
            "configurations, each for one epoch first; none is begun after minute "
            f"{minute:.1f}, then the best are trained to their end"
        )

    def spent(self) -> Spent:
        """Return what all commands have spent."""
        elapsed = self.clock() - self._began
        now = replace(self._now, seconds=elapsed, slots=elapsed * self.num_slots)
        total = {key: value + asdict(now)[key] for key, value in asdict(self._before).items()}
        return Spent(**total)

    def as_plain(self) -> dict[str, Any]:
        """Return what the next command has to know."""
        return {"spent": asdict(self.spent()), "pace": self.pace.learned()}


def spent_before(stored: Mapping[str, Any] | None) -> Spent:
    """Return what earlier commands have spent. ``stored``: what `Budget.as_plain` returned."""
    return Spent(**(stored or {}).get("spent", {}))
