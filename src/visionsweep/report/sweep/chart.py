"""What the charts of a sweep share: its trials as an Optuna study, names, plain traces."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionsweep.report.sweep.axes import labelled, labels, objective_range, text
from visionsweep.report.sweep.optuna_study import make_distributions, make_study, make_trial
from visionsweep.report.sweep.record import SweptTrial
from visionsweep.report.sweep.winner import Summary
from visionsweep.text import shortened

if TYPE_CHECKING:
    from optuna.study import Study
    from plotly.graph_objects import Figure

MAX_LINES = 500  # of a chart
OPTUNA_STATES = {"pruned": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
_MAX_OBJECTIVE = 1e150  # Optuna fails if the difference of two overflows

Traces = list[dict[str, Any]]


@dataclass(frozen=True)
class Chart:
    """One chart of the page, in plotly's own terms."""

    id: str
    title: str
    note: str  # plain text under the title
    data: Traces
    layout: dict[str, Any]
    width: str  # of the page: "half", "full" or "third"


def make_chart(
    id: str,
    title: str,
    note: str,
    data: Traces,
    layout: dict[str, Any],
    height: int,
    width: str = "half",
) -> Chart:
    """Return a chart `height` pixels high."""
    return Chart(id, title, note, data, layout | {"title": None, "height": height}, width)


class ChartedSweep:
    """A sweep with the names of its charts, and its complete trials as a study.

    Attributes: ``names``: parameter -> name on the charts, those that mattered most first;
    ``record``: the sweep with these names; ``metrics``: the objectives' names; ``ranked``: the
    complete trials, best first; ``complete``: the same by number, in the order of ``study``;
    ``range`` and ``note``: see `axes.objective_range`.
    """

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        self.names = labels(summary.ordered_keys())
        self.record = labelled(summary.record, self.names)
        self.metrics = [text(shortened(name, 40)) for name in self.record.metrics]
        self._distributions = make_distributions(self.record.space)
        ranked = self.record.ranked()
        self.ranked = [t for t in ranked if max(map(abs, t.values)) < _MAX_OBJECTIVE]
        self._finite = {trial.number for trial in self.ranked}
        self.range, self.note = objective_range(self.record, reach=1.6)
        self.complete = [trial for trial in self.record.trials if trial.number in self._finite]
        self.study = self.make_study(self.complete, has_params=True)

    def make_study(
        self,
        trials: Iterable[SweptTrial],
        num_objectives: int = 1,
        *,
        has_params: bool = False,
        has_curves: bool = False,
    ) -> "Study":
        """Return a study of the trials.

        It holds no more than a chart needs: Optuna copies all of it, again and again.
        """
        distributions = self._distributions if has_params else {}
        frozen = []
        for trial in trials:
            state = self.state_of(trial)
            values = trial.values[:num_objectives] if state == "COMPLETE" else None
            curve = trial.curve if has_curves else ()
            frozen.append(make_trial(trial, distributions, state, values, curve))
        return make_study(self.record.directions[:num_objectives], frozen)

    def state_of(self, trial: SweptTrial) -> str:
        """Return Optuna's state of a trial; NaN and infinite objectives count as failed."""
        is_complete = trial.number in self._finite
        return "COMPLETE" if is_complete else OPTUNA_STATES.get(trial.state, "FAIL")

    def known_names(self, study: "Study") -> list[str]:
        """Return the parameters that some trial has, those that mattered most first."""
        known = {name for trial in study.get_trials(deepcopy=False) for name in trial.params}
        return [name for name in self.names.values() if name in known]


def plain(figure: "Figure") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return traces and layout as plain mappings, which are edited much faster than plotly's."""
    figure.layout.template = None
    plain = json.loads(figure.to_json())
    return plain["data"], plain["layout"]


def whole_numbers(last: int) -> dict[str, Any]:
    """Return the ticks of an axis of whole numbers."""
    return {"dtick": 1} if last <= 12 else {}


def numbers_of(trials: Iterable[SweptTrial]) -> list[int]:
    """Return the numbers of trials."""
    return [trial.number for trial in trials]


def numbered(numbers: Sequence[int]) -> dict[str, Any]:
    """Return the trial of each point, in place of Optuna's texts, which take more room."""
    return {"customdata": numbers, "text": None, "hovertext": None, "hovertemplate": None}
