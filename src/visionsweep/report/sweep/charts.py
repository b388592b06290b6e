"""The charts of a sweep's page, made by `optuna.visualization`.

Our own, because Optuna's charts do not have it:
- Each point knows its trial's number (`customdata`, or `meta` of a whole line), so that the page
  can mark one trial in all charts and show its parameters; Optuna's texts for that are left out.
- The axis of the objective leaves out trials far behind (see `axes.focus`).
- Learning curves have the colours of the trials' states and not one colour per trial.
- Importances count pruned trials (see `importances`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from visionsweep.report.sweep.axes import COLORS, objective_range
from visionsweep.report.sweep.chart import (
    MAX_LINES,
    OPTUNA_STATES,
    Chart,
    ChartedSweep,
    make_chart,
    numbered,
    numbers_of,
    plain,
    whole_numbers,
)
from visionsweep.report.sweep.optuna_study import quiet_optuna
from visionsweep.report.sweep.param_charts import importances, parallel_coordinates, rank, slices
from visionsweep.report.sweep.record import SweptTrial
from visionsweep.report.sweep.winner import Summary
from visionsweep.text import counted

_LINES = {
    "pruned": {"width": 1, "color": "rgba(140,140,140,0.6)", "dash": "dot"},
    "complete": {"width": 1, "color": "rgba(0,114,178,0.5)"},
    "running": {"width": 1.5, "color": COLORS["running"]},
}


def make_charts(summary: Summary) -> list[Chart]:
    """Return the charts that the sweep has data for, in the page's order."""
    with quiet_optuna():
        sweep = ChartedSweep(summary)
        made = [
            history(sweep),
            importances(sweep),
            *pareto_fronts(sweep),
            learning_curves(sweep),
            timeline(sweep),
            parallel_coordinates(sweep),
            rank(sweep),
            *slices(sweep),
        ]
    return [chart for chart in made if chart is not None]


def history(sweep: ChartedSweep) -> Chart | None:
    """Return the first objective of the complete trials, and the best so far."""
    from optuna.visualization import plot_optimization_history

    trials, study = sweep.complete, sweep.study
    if not trials:
        return None
    data, layout = plain(plot_optimization_history(study, target_name=sweep.metrics[0]))
    numbers = numbers_of(trials)
    points, best = data[:2]  # without Optuna's infeasible trials
    points |= {"x": numbers, "customdata": numbers, "marker": {"color": COLORS["complete"]}}
    line = {"color": "#444444", "width": 1.5, "shape": "hv"}
    best |= {"x": numbers, "line": line, "name": "best so far", "hoverinfo": "skip"}
    note = sweep.note
    if any(trial.seed_std is not None for trial in trials):
        spread = [trial.seed_std or 0.0 for trial in trials]
        points["error_y"] = {"type": "data", "array": spread, "thickness": 1, "width": 2}
        up_to = "up to " if sweep.record.races else ""
        seeds = f"{up_to}{sweep.record.num_seeds} seeds"
        note = f"Bars: standard deviation over {seeds}. {note}".strip()
    layout["xaxis"] = {"title": {"text": "trial"}, **whole_numbers(numbers[-1])}
    layout["yaxis"]["range"] = sweep.range
    return make_chart("history", "Optimization history", note, [points, best], layout, 340)


def pareto_fronts(sweep: ChartedSweep) -> list[Chart]:
    """Return a chart of each further objective against the first."""
    from optuna.visualization import plot_pareto_front

    record = sweep.record
    charts: list[Chart] = []
    if len(record.metrics) == 1 or not sweep.ranked:
        return []
    front = {trial.number for trial in record.pareto()}
    trials = sweep.complete
    study = sweep.make_study(trials, num_objectives=len(record.metrics))
    num_pruned = record.counts().get("pruned", 0)
    best = [number for number in numbers_of(trials) if number in front]
    beaten = [number for number in numbers_of(trials) if number not in front]
    for i, name in enumerate(sweep.metrics[1:], start=1):
        axes = [name, sweep.metrics[0]]
        figure = plot_pareto_front(study, targets=_pair(i), target_names=axes)
        data, layout = plain(figure)
        for trace, numbers, state, color in zip(
            data,
            (beaten, best),
            ("beaten", "Pareto-optimal"),
            (COLORS["pruned"], COLORS["complete"]),
            strict=True,
        ):
            trace |= {"name": state, "showlegend": True, "marker": {"color": color}}
            trace |= numbered(numbers)
        note = f"{record.metrics[0]}: {record.directions[0]}; "
        note += f"{record.metrics[i]}: {record.directions[i]}."
        if num_pruned:
            note += f" Without {counted(num_pruned, 'pruned trial')}."
        title = f"Pareto front: {record.metrics[i]}"
        charts.append(make_chart(f"pareto-{i}", title, note, data, layout, 340))
    return charts


def learning_curves(sweep: ChartedSweep) -> Chart | None:
    """Return the objective over epochs, one line per trial."""
    from optuna.visualization import plot_intermediate_values

    record = sweep.record
    # Optuna shows no curves of failed trials
    with_curve = [t for t in record.trials if t.curve and sweep.state_of(t) != "FAIL"]
    trials = _sample(with_curve, sweep.ranked)
    if not trials:
        return None
    study = sweep.make_study(trials, has_curves=True)
    data, layout = plain(plot_intermediate_values(study))
    seen: set[str] = set()
    is_short = max(len(trial.curve) for trial in trials) == 1
    for trace, trial in zip(data, trials, strict=True):
        trace |= {
            "meta": trial.number,
            "mode": "lines+markers" if is_short else "lines",
            "line": _LINES[trial.state],
            "name": trial.state,
            "legendgroup": trial.state,
            "showlegend": trial.state not in seen,
        }
        seen.add(trial.state)
    last = max(trial.curve[-1][0] for trial in trials)
    has_runs = record.num_seeds * record.num_folds > 1
    notes = ["The first run of each trial."] if has_runs else []
    if len(trials) < len(with_curve):
        notes.append(f"The best and a sample of the others, {len(trials)} trials.")
    ends, _ = objective_range(record, reach=3.0)
    layout |= {
        "showlegend": True,
        "xaxis": {"title": {"text": "epoch"}, **whole_numbers(last)},
        "yaxis": {"title": {"text": sweep.metrics[0]}, "range": ends},
    }
    return make_chart("curves", "Learning curves", " ".join(notes), data, layout, 360)


def timeline(sweep: ChartedSweep) -> Chart | None:
    """Return when each trial ran."""
    from optuna.visualization import plot_timeline

    trials = [t for t in sweep.record.trials if t.start is not None and t.duplicate_of is None]
    if not trials:
        return None
    data, layout = plain(plot_timeline(sweep.make_study(trials)))
    states = {"COMPLETE": "complete"} | {v: k for k, v in OPTUNA_STATES.items()}
    for trace in data:
        numbers = [trials[index].number for index in trace["y"]]
        state = states[trace["name"]]
        trace |= {"y": numbers, "name": state, "marker": {"color": COLORS[state]}}
        trace |= numbered(numbers)
    layout["xaxis"]["title"] = None
    layout["yaxis"] = {"title": {"text": "trial"}, "autorange": "reversed"}
    return make_chart("timeline", "Timeline", "", data, layout, 360)


def _pair(i: int) -> Callable[[Any], list[float]]:
    return lambda trial: [trial.values[i], trial.values[0]]


def _sample(trials: list[SweptTrial], ranked: Sequence[SweptTrial]) -> list[SweptTrial]:
    """Return at most MAX_LINES trials: the best ones and an even sample of the others."""
    if len(trials) <= MAX_LINES:
        return trials
    chosen = {trial.number for trial in ranked[: MAX_LINES // 2]}
    others = [trial for trial in trials if trial.number not in chosen]
    step = len(others) / (MAX_LINES - MAX_LINES // 2)
    chosen |= {others[int(i * step)].number for i in range(MAX_LINES - MAX_LINES // 2)}
    return [trial for trial in trials if trial.number in chosen]
