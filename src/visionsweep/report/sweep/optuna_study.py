"""A sweep as an Optuna study in memory, for `optuna.visualization` and `optuna.importance`."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionsweep.report.sweep.record import Direction, SweptTrial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Distributions = dict[str, "BaseDistribution"]


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence what Optuna logs and warns about for studies that people never see."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def make_study(directions: Sequence[Direction], trials: Sequence["FrozenTrial"]) -> "Study":
    """Return a study of the trials; Optuna numbers them from 0 in their order."""
    import optuna

    study = optuna.create_study(directions=directions)
    study.add_trials(trials)
    return study


def make_distributions(space: Mapping[str, Mapping[str, Any]]) -> Distributions:
    """Return Optuna's distributions, without those that cannot be understood."""
    found = {key: _distribution(described) for key, described in space.items()}
    return {key: distribution for key, distribution in found.items() if distribution is not None}


def _distribution(space: Mapping[str, Any]) -> "BaseDistribution | None":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    try:
        if "choices" in space:
            return CategoricalDistribution([_choice(choice) for choice in space["choices"]])
        log, step = bool(space.get("log")), space.get("step")
        if space["type"] == "int":
            return IntDistribution(space["low"], space["high"], log=log, step=step or 1)
        return FloatDistribution(space["low"], space["high"], log=log, step=step)
    except (KeyError, TypeError, ValueError):
        return None


def _choice(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def make_trial(
    trial: SweptTrial,
    distributions: Distributions,
    state: str,
    values: Sequence[float] | None = None,
    curve: Sequence[tuple[int, float]] = (),
) -> "FrozenTrial":
    """Return Optuna's form of a trial in `state` (COMPLETE, FAIL, ...).

    `values` are the objectives of a complete one, `curve` its (epoch, objective) pairs.
    Parameters outside of the space are left out: the space may have changed since.
    """
    from optuna.trial import TrialState, create_trial

    params = {
        key: _choice(value)
        for key, value in trial.params.items()
        if key in distributions and _contains(distributions[key], _choice(value))
    }
    made = create_trial(
        state=TrialState[state],
        values=values,
        params=params,
        distributions={key: distributions[key] for key in params},
        intermediate_values=dict(curve),
    )
    if trial.start is not None:
        made.datetime_start = datetime.fromtimestamp(trial.start)
        if made.state.is_finished():
            end = trial.start if trial.end is None else max(trial.start, trial.end)
            made.datetime_complete = datetime.fromtimestamp(end)
    return made


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False
