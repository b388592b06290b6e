"""A sweep as its files tell it: trials, their curves, the search space. Also while it runs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from visionsweep.report.sweep import files
from visionsweep.report.sweep.values import parse_value, seen_distribution
from visionsweep.rundir.layout import CONFIG, SWEEP, TRIALS, run_place, runs_of_trial
from visionsweep.sweep import ranking
from visionsweep.text import param_text

if TYPE_CHECKING:
    from visionsweep.sweep.repeats import Noise

TrialState = Literal["complete", "pruned", "failed", "running"]
Direction = Literal["maximize", "minimize"]

_PARAM = "params."  # prefix of the parameters' columns in the sweep's table
_STATES: dict[str | None, TrialState] = {
    "finished": "complete",
    "pruned": "pruned",
    "failed": "failed",
    None: "running",
}


@dataclass(frozen=True)
class SweptTrial:
    """One trial as it stands in the sweep's files."""

    number: int
    state: TrialState
    # the objectives; of a pruned trial the last one reported; empty if there is none
    values: tuple[float, ...]
    params: dict[str, Any]  # the searched ones that are active, in their own types
    start: float | None  # seconds since 1970
    end: float | None
    epochs: int | None  # with several runs (seeds, folds) their sum
    directory: str  # relative to the sweep's; with several runs that of the first
    # (epoch, objective of that epoch) of the first run, without NaN and infinities
    curve: tuple[tuple[int, float], ...] = ()
    seed_std: float | None = None
    seed_values: tuple[float, ...] = ()  # with several seeds: the objective of each
    has_all_seeds: bool = True  # as many as the sweep allows
    fold_mean: float | None = None  # the value is that of all folds' images together
    fold_std: float | None = None
    duplicate_of: int | None = None
    error: str | None = None  # one line

    @property
    def value(self) -> float | None:
        """The first objective, by which trials are ranked; None if missing, NaN or infinite."""
        return self.values[0] if self.values and math.isfinite(self.values[0]) else None

    @property
    def seconds(self) -> float | None:
        """The time from start to end, None if one of them is missing."""
        return None if self.start is None or self.end is None else max(0.0, self.end - self.start)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep: `trials` by number."""

    name: str
    metrics: tuple[str, ...]  # the objectives' names; the first ranks the trials
    directions: tuple[Direction, ...]
    # parameter -> distribution, as stored by the sweep
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: Sequence[SweptTrial] = ()
    run_epochs: int | None = None  # of a run that is not pruned, if known
    num_seeds: int = 1  # runs per trial: one per seed and fold
    num_folds: int = 1
    races: bool = False  # only trials that may be the best get more than one seed

    def ranked(self) -> list[SweptTrial]:
        """Return the complete trials, best first; see `sweep.ranking.ranked`."""
        return ranking.ranked(self._comparable(), self.directions)

    def pareto(self) -> list[SweptTrial]:
        """Return the Pareto set of the complete trials, best first in the first objective."""
        front = {trial.number for trial in ranking.pareto(self._comparable(), self.directions)}
        return [trial for trial in self.ranked() if trial.number in front]

    def counts(self) -> dict[TrialState, int]:
        """Return the number of trials by state, without states that have none."""
        states: tuple[TrialState, ...] = get_args(TrialState)
        counted = {state: sum(trial.state == state for trial in self.trials) for state in states}
        return {state: count for state, count in counted.items() if count}

    def noise(self) -> "Noise | None":
        """Return the noise between seeds; None if it is not known."""
        from visionsweep.sweep.repeats import noise_of  # NumPy: a command starts without it

        trials = [trial for trial in self.trials if trial.state == "complete"]
        values = {trial.number: trial.seed_values for trial in trials if trial.seed_values}
        return noise_of(values) if len(self.directions) == 1 else None

    def cost(self, value: float) -> float:
        """Return a value of the first objective, negated if it is maximized: lower is better."""
        return -value if self.directions[0] == "maximize" else value

    def epochs_saved(self) -> int | None:
        """Return the epochs that pruning saved; None if the length of a whole run is unknown."""
        saved = 0
        for trial in self.trials:
            if trial.state == "pruned":
                full = trial.params.get("trainer.epochs", self.run_epochs)
                if not isinstance(full, int) or trial.epochs is None:
                    return None
                num_seeds = 1 if self.races else self.num_seeds
                saved += max(0, full * num_seeds * self.num_folds - trial.epochs)
        return saved

    def _comparable(self) -> list[SweptTrial]:
        """Return the trials that have every objective: a row of the table may be cut off."""
        return [trial for trial in self.trials if len(trial.values) == len(self.directions)]


def read_sweep(sweep_dir: Path) -> SweepRecord:
    """Read a sweep's directory. Missing, half-written and damaged files count as empty.

    The trials come from the sweep's table and the space from its stored settings. For another
    sweeper (a plain grid) both come from the runs: result, overrides, journal. An unknown space is
    derived from the trials' values.
    """
    stored = files.yaml_mapping(sweep_dir / SWEEP)
    columns, rows = files.table(sweep_dir / TRIALS)
    runs = [] if stored or rows else _plain_runs(sweep_dir)
    config = _mapping(stored.get("config"))
    if not config:
        first = next((run for run in runs if (run / CONFIG).exists()), sweep_dir / run_place(0))
        config = files.yaml_mapping(first / CONFIG)
    search = _mapping(stored.get("search"))
    num_values = sum(column == "value" or column.startswith("value_") for column in columns)
    metrics, directions = _objectives(
        _mapping(config.get("objective")), search.get("direction"), num_values
    )
    space = {
        str(key): dict(value)
        for key, value in _mapping(search.get("space")).items()
        if isinstance(value, dict)
    }
    if runs:
        trials = _plain_trials(runs, metrics)
    else:
        read = (_table_trial(sweep_dir, row, space, metrics[0]) for row in rows)
        trials = [trial for trial in read if trial is not None]
    trials = sorted(
        {trial.number: trial for trial in trials}.values(), key=lambda trial: trial.number
    )
    num_seeds, races = _count(search.get("seeds")), search.get("seeds_for") == "contenders"
    if races:
        trials = _with_seeds(trials, num_seeds)
    for key in dict.fromkeys(key for trial in trials for key in trial.params):
        if key not in space:
            space[key] = seen_distribution(
                trial.params[key] for trial in trials if key in trial.params
            )
    epochs = _mapping(config.get("trainer")).get("epochs")
    return SweepRecord(
        name=sweep_dir.resolve().name,
        metrics=metrics,
        directions=directions,
        space=space,
        trials=trials,
        run_epochs=epochs if isinstance(epochs, int) else None,
        num_seeds=num_seeds,
        num_folds=_count(search.get("folds")),
        races=races,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objectives(
    objective: Mapping[str, Any], given: object, num_values: int
) -> tuple[tuple[str, ...], tuple[Direction, ...]]:
    """Return names and directions; the objective of another app is named `value`."""
    others = _mapping(objective.get("others"))
    known = given if isinstance(given, list) else [given] if isinstance(given, str) else None
    if known is None:
        known = [objective.get("direction"), *others.values()]
    known += [known[0]] * (num_values - len(known))
    directions: tuple[Direction, ...] = tuple(
        "minimize" if d == "minimize" else "maximize" for d in known
    )
    names = [str(objective["metric"]), *map(str, others)] if "metric" in objective else []
    if len(names) != len(directions):
        names = (
            ["value"] if len(directions) == 1 else [f"value_{i}" for i in range(len(directions))]
        )
    return tuple(names), directions


def _table_trial(
    sweep_dir: Path, row: Mapping[str, str], space: Mapping[str, dict[str, Any]], metric: str
) -> SweptTrial | None:
    """Return the trial in a row of the sweep's table, None if the row holds none."""
    number, state = row.get("number", ""), row.get("state", "")
    if not number.isdecimal() or state not in get_args(TrialState):
        return None
    cells = [
        cell for column, cell in row.items() if column == "value" or column.startswith("value_")
    ]
    values = [value for cell in cells if (value := files.number(cell)) is not None]
    directory = row.get("directory") or number
    first_run = runs_of_trial(sweep_dir / number)[0]
    if first_run.name != number:
        directory = first_run.relative_to(sweep_dir).as_posix()
    # a trial that took another's value has no run
    curve = files.curve(files.journal(sweep_dir / directory), metric)
    epochs, duplicate_of = files.number(row.get("epochs")), row.get("duplicate_of", "")
    if epochs is None and curve:
        epochs = curve[-1][0]  # still running
    columns = {
        column.removeprefix(_PARAM): cell
        for column, cell in row.items()
        if column.startswith(_PARAM)
    }
    return SweptTrial(
        number=int(number),
        state=state,  # type: ignore[arg-type]
        values=tuple(values) if len(values) == len(cells) else (),
        params={
            key: parse_value(cell, space.get(key)) for key, cell in columns.items() if cell != ""
        },
        start=files.seconds_since_1970(row.get("start", "")),
        end=None if state == "running" else files.seconds_since_1970(row.get("end", "")),
        epochs=None if epochs is None or not math.isfinite(epochs) else int(epochs),
        directory=directory,
        curve=curve,
        seed_std=files.number(row.get("seed_std")),
        seed_values=_numbers(row.get("seed_values")),
        fold_mean=files.number(row.get("fold_mean")),
        fold_std=files.number(row.get("fold_std")),
        duplicate_of=int(duplicate_of) if duplicate_of.isdecimal() else None,
        error=row.get("error") or None,
    )


def _with_seeds(trials: Sequence[SweptTrial], num_seeds: int) -> list[SweptTrial]:
    """Note which trials have all of their seeds; a copy has those of its original."""
    seeds = {trial.number: len(trial.seed_values) for trial in trials}
    counts = [seeds.get(t.number if t.duplicate_of is None else t.duplicate_of, 0) for t in trials]
    return [
        replace(t, has_all_seeds=count >= num_seeds)
        for t, count in zip(trials, counts, strict=True)
    ]


def _numbers(cell: str | None) -> tuple[float, ...]:
    try:
        found = json.loads(cell or "[]")
        return tuple(map(float, found))
    except (TypeError, ValueError):
        return ()


def _plain_runs(sweep_dir: Path) -> list[Path]:
    try:
        runs = [run for run in sweep_dir.iterdir() if run.name.isdecimal() and run.is_dir()]
    except OSError:
        return []
    return sorted(runs, key=lambda run: int(run.name))


def _plain_trials(runs: Sequence[Path], metrics: Sequence[str]) -> list[SweptTrial]:
    """Return the runs of a plain grid; the overrides that differ were searched."""
    given = [dict(_split(override) for override in files.overrides(run)) for run in runs]
    keys = dict.fromkeys(key for overrides in given for key in overrides)
    differing = [
        key for key in keys if len({overrides.get(key) for overrides in given if overrides}) > 1
    ]
    trials = []
    for run, overrides in zip(runs, given, strict=True):
        params = {key: parse_value(overrides[key]) for key in differing if key in overrides}
        trials.append(_plain_trial(run, params, metrics))
    return trials


def _split(override: str) -> tuple[str, str]:
    key, has_value, value = override.partition("=")
    return key.lstrip("+"), value if has_value else param_text(None)


def _plain_trial(run: Path, params: dict[str, Any], metrics: Sequence[str]) -> SweptTrial:
    result, records = files.result(run), files.journal(run)
    ended = result.get("state") or files.end_state(records)
    # a run that the user stopped has no result to rank it by
    state: TrialState = _STATES.get(ended, "failed")
    objective, others = _mapping(result.get("objective")), _mapping(result.get("others"))
    values = [files.number(value) for value in (objective.get("value"), *others.values())][
        : len(metrics)
    ]
    curve = files.curve(records, metrics[0])
    start, end = files.times(records)
    error = result.get("error") or (ended if state == "failed" else None)
    epochs = result.get("epochs") or (curve[-1][0] if curve else None)
    return SweptTrial(
        number=int(run.name),
        state=state,
        values=tuple(value for value in values if value is not None) if None not in values else (),
        params=params,
        start=start,
        end=None if state == "running" else end,
        epochs=epochs if isinstance(epochs, int) else None,
        directory=run.name,
        curve=curve,
        error=str(error).strip().splitlines()[0] if error and str(error).strip() else None,
    )
