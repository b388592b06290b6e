"""The command that widens the ranges whose ends hold the best values.

Intervals and ranges widen within the study (`hydra.sweeper.on_change=extend`). Choices cannot
change within one, so a new study takes over what this one found (`hydra.sweeper.warm_start`).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote
from hydra.errors import HydraException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from visionsweep.config.paths import shown
from visionsweep.config.typed_text import as_typed
from visionsweep.program import program
from visionsweep.rundir.ranges import Ranges
from visionsweep.sweep.command_line import command_of
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.edges import Edge, edges, number_choices
from visionsweep.sweep.space import grammar
from visionsweep.sweep.space.dimensions import Dimension, describe
from visionsweep.sweep.stored import override_key
from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.text import is_masked

_PARAMS = "hydra.sweeper.params"
_MOST = 10.0  # times, of a logarithmic range


def ranges_of(sweep: Sweep, trials: Sequence[TrialRecord]) -> Ranges:
    """Return what to say of the ranges of a sweep that is over; nothing of one that is not."""
    settings = sweep.settings
    is_over = all(trial.state != "running" for trial in trials)
    if not is_over or len(settings.directions) > 1 or sweep.candidates is not None:
        return Ranges()
    valid = [trial for trial in trials if trial.number >= sweep.current.valid_from]
    found = edges(sweep.space.dimensions, valid, settings.directions[0])
    return Ranges(tuple(map(_line, found)), _command(sweep, found, len(trials)))


def _line(edge: Edge) -> str:
    end = "upper" if edge.is_upper else "lower"
    return (
        f"{edge.key}: {edge.num_there} of the best {edge.num_best} trials lie at the {end} end of "
        f"its range ({describe(edge.dimension.distribution)}): the optimum may lie beyond"
    )


def _command(sweep: Sweep, found: Sequence[Edge], num_trials: int) -> str | None:
    """Return the command, or None if there is none to type."""
    wider: dict[str, str] = {}
    for edge in found:
        both = [other for other in found if other.key == edge.key]
        wider[edge.key] = widened(edge.dimension, {other.is_upper for other in both})
    if not wider:
        return None
    task = sweep.current.task_overrides
    typed = {override_key(override) for override in task}
    is_typed = {key: key.lstrip("+") in typed for key in wider}
    words = [f"{key}={text}" for key, text in wider.items() if is_typed[key]]
    params = _params(sweep, {key: text for key, text in wider.items() if not is_typed[key]})
    words += [f"+{_PARAMS}={grammar.text_of(params, Quote.double)}"] if params else []
    has_choices = any(isinstance(e.dimension.distribution, CategoricalDistribution) for e in found)
    words = _new_study(sweep, words) if has_choices else _same_study(sweep, words, num_trials)
    try:
        OverridesParser.create().parse_overrides(words)
    except HydraException:  # a key that cannot stand in a mapping
        return None
    return None if any(map(is_masked, words)) else command_of(f"{program()} --multirun", words)


def _same_study(sweep: Sweep, words: Sequence[str], num_trials: int) -> list[str]:
    total = "null" if sweep.grid is not None else 2 * num_trials
    minutes = sweep.settings.budget_minutes
    more = f"n_trials={total}" if minutes is None else f"budget_minutes={2 * minutes:g}"
    extend = ["hydra.sweeper.on_change=extend", f"hydra.sweeper.{more}"]
    return [*sweep.resume_overrides, *words, *extend]


def _new_study(sweep: Sweep, words: Sequence[str]) -> list[str]:
    """Return the overrides of a new study of the same search, informed by this one."""
    key = sweep.settings.study_key
    set_anew = {*map(override_key, words), key, "hydra.sweep.dir", "hydra.sweeper.study_name"}
    set_anew |= {"hydra.sweeper.warm_start"}
    old = [*sweep.current.hydra_overrides, *sweep.current.task_overrides]
    kept = [override for override in old if override_key(override) not in set_anew]
    name = sweep.sweep_dir.name
    is_named = key is not None and any(override_key(o) == key for o in sweep.resume_overrides)
    place = (
        f"{key}={as_typed(f'{name}-wider')}"
        if is_named
        else f"hydra.sweep.dir={as_typed(f'{sweep.sweep_dir}-wider')}"
    )
    known = [*sweep.settings.warm_start, shown(sweep.sweep_dir)]
    listed = ",".join(map(as_typed, known))
    start = f"hydra.sweeper.warm_start={f'[{listed}]' if len(known) > 1 else listed}"
    return [place, *kept, *words, *([] if sweep.grid is not None else [start])]


def _params(sweep: Sweep, wider: Mapping[str, str]) -> dict[str, Any]:
    """Return `hydra.sweeper.params` with wider ranges, under their conditions."""
    given = {
        key: value for key, value in (sweep.settings.params or {}).items() if value is not None
    }
    defaults = sweep.settings.default_params or {}
    for key, text in wider.items():
        old = given.get(key, defaults.get(key))
        given[key] = {**old, "space": text} if isinstance(old, Mapping) else text
    return given if wider else {}


def widened(dimension: Dimension, ends: set[bool]) -> str:
    """Return a wider range as the right side of an override; ``ends``: True is the upper one."""
    distribution = dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({','.join(map(grammar.number, _more_choices(dimension, ends)))})"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    wider = _beyond_log if distribution.log else _beyond
    new_low = wider(low, high, is_upper=False) if False in ends else low
    new_high = wider(low, high, is_upper=True) if True in ends else high
    if isinstance(distribution, IntDistribution):
        new_low, new_high = min(low, math.floor(new_low)), max(high, math.ceil(new_high))
        if not distribution.log and low >= 0:
            new_low = max(new_low, min(low, 1))
    if distribution.step is not None and not distribution.log:
        return _stepped(distribution, new_low, new_high)
    text = f"interval({new_low!r},{new_high!r})"
    if isinstance(distribution, IntDistribution):
        text = f"int({text})"
    return f"tag(log,{text})" if distribution.log else text


def _beyond_log(low: float, high: float, *, is_upper: bool) -> float:
    """Return a new end that adds half of the decades, but at most one, to one digit."""
    factor = min(_MOST, math.sqrt(high / low))
    return _rounded(high * factor if is_upper else low / factor, 1)


def _beyond(low: float, high: float, *, is_upper: bool) -> float:
    """Return a new end that adds half of the range, to two digits, and keeps signs and shares."""
    half = (high - low) / 2
    if is_upper:
        is_share = low >= 0 and high < 1
        return _rounded(min(high + half, (1 + high) / 2) if is_share else high + half, 2)
    return _rounded(max(low - half, 0.0) if low >= 0 else low - half, 2)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _stepped(distribution: FloatDistribution | IntDistribution, low: float, high: float) -> str:
    """Return a range whose values include the old ones. Hydra's `stop` is exclusive."""
    step, first, last = (
        Decimal(str(value)) for value in (distribution.step, distribution.low, distribution.high)
    )
    before = max(0, math.floor((first - Decimal(str(low))) / step))
    after = max(0, math.ceil((Decimal(str(high)) - last) / step))
    return f"range({first - before * step},{last + (after + 1) * step},{step})"


def _more_choices(dimension: Dimension, ends: set[bool]) -> list[float]:
    """Return numbers as choices with one more at an end, at the same ratio or distance."""
    ordered = sorted(number_choices(dimension) or ())
    new = [_next(ordered[::-1])] if False in ends else []
    new += ordered
    return [*new, _next(ordered)] if True in ends else new


def _next(numbers: Sequence[float]) -> float:
    """Return the number that continues others: 64 after 8, 16, 32, and 0.4 after 0.1, 0.2, 0.3."""
    before, last = numbers[-2:]
    found = last + (last - before)
    if min(numbers) > 0:
        ratios = [second / first for first, second in itertools.pairwise(numbers)]
        if max(ratios) - min(ratios) < 0.01 * max(ratios):
            found = last * last / before
        elif found <= 0:
            found = last / 2
    is_whole = all(isinstance(number, int) for number in numbers)
    return round(found) if is_whole else _rounded(found, 6)
