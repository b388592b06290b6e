"""The charts of a sweep's parameters, made by `optuna.visualization`; see `charts`."""

import re
from typing import Any

from visionsweep.report.sweep.axes import COLORS
from visionsweep.report.sweep.chart import (
    MAX_LINES,
    Chart,
    ChartedSweep,
    make_chart,
    numbered,
    numbers_of,
    plain,
)
from visionsweep.report.sweep.importances import num_best, num_judged
from visionsweep.report.sweep.linked import followers
from visionsweep.report.sweep.optuna_study import make_study
from visionsweep.report.sweep.values import share_text
from visionsweep.text import shortened

MAX_SLICES = 30
MAX_PARALLEL = 10  # axes whose names still fit
_MAX_BARS = 20


def importances(sweep: ChartedSweep) -> Chart | None:
    """Return the parameters' shares, the largest on top."""
    from optuna.visualization import plot_param_importances

    shares = dict(list(sweep.summary.shares.items())[:_MAX_BARS])
    if len(shares) < 2:
        return None
    known = {sweep.names[key]: share for key, share in shares.items()}
    # Optuna copies all trials for each parameter, only to look up one that has it
    complete = sweep.study.get_trials(deepcopy=False)
    holders = [next(trial for trial in complete if name in trial.params) for name in known]
    study = make_study(sweep.record.directions[:1], holders)
    figure = plot_param_importances(study, evaluator=_evaluator(known))
    data, layout = plain(figure)
    data[0] |= {
        "text": [share_text(share) for share in reversed(shares.values())],
        "marker": {"color": COLORS["complete"]},
        "hovertemplate": None,
        "hoverinfo": "skip",
    }
    room = [0, 1.2 * max(shares.values())]  # for the texts beside the bars
    xaxis = {"title": {"text": "share"}, "tickformat": ".0%", "range": room}
    layout |= {"xaxis": xaxis, "yaxis": {}}
    record = sweep.summary.record
    note = f"How far the best {num_best(record)} trials differ from all {num_judged(record)}"
    note += " (PED-ANOVA)."
    linked = followers(record.space)
    for first in filter(linked.__contains__, sweep.summary.shares):
        names = ", ".join(shortened(key, 32) for key in linked[first])
        note += f" {shortened(first, 32)} stands for {names} too, which move with it."
    judged = {*sweep.summary.shares, *(key for moved in linked.values() for key in moved)}
    others = [shortened(key, 32) for key in record.space if key not in judged]
    if others:
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        note += f" Not judged, as few of the best have them: {', '.join(others[:4])}{more}."
    height = max(200, min(340, 90 + 30 * len(shares)))
    return make_chart("importances", "Parameter importances", note, data, layout, height)


def parallel_coordinates(sweep: ChartedSweep) -> Chart | None:
    """Return one line per complete trial across the objective and the parameters."""
    from optuna.visualization import plot_parallel_coordinate

    low, high = sweep.range or (-float("inf"), float("inf"))
    near = [t for t in sweep.ranked if t.value is not None and low <= t.value <= high]
    trials = near[:MAX_LINES]
    study = sweep.make_study(trials, has_params=True)
    known = sweep.known_names(study)
    keys = sorted(known[:MAX_PARALLEL])
    if len(trials) < 2 or not keys:
        return None
    figure = plot_parallel_coordinate(study, params=keys, target_name=sweep.metrics[0])
    data, layout = plain(figure)
    for trace, trial in zip(data, trials, strict=False):  # then comes the colour bar
        trace |= {"meta": trial.number, "customdata": None, "hovertemplate": None}
        trace["line"]["color"] = _darker(trace["line"]["color"])
    scale = data[-1]["marker"]["colorscale"]
    data[-1]["marker"]["colorscale"] = [[place, _darker(color)] for place, color in scale]
    ticks = [re.sub(r"\b\.\b", ".<br>", name) for name in (sweep.metrics[0], *keys)]
    layout["xaxis"] |= {"ticktext": ticks, "side": "top"}
    notes = [] if len(near) == len(sweep.ranked) else ["Without the trials far behind."]
    if any(key not in trial.params for trial in trials for key in keys):
        notes.append("None at the bottom of an axis: the parameter was not active.")
    if len(near) > len(trials):
        notes.append(f"The best {len(trials)}.")
    if len(keys) < len(known):
        notes.append(f"{len(keys)} of {len(known)} parameters, those that mattered most.")
    title = "Parallel coordinates"
    return make_chart("parallel", title, " ".join(notes), data, layout, 400, "full")


def _darker(color: str) -> str:
    """Return a colour ``rgb(r, g, b)`` darker: Optuna's scale begins with white, the page's."""
    shades = (0.8 * float(shade) for shade in re.findall(r"[\d.]+", color))
    return "rgb({:.0f}, {:.0f}, {:.0f})".format(*shades)


def rank(sweep: ChartedSweep) -> Chart | None:
    """Return the two most important parameters against each other."""
    from optuna.visualization import plot_rank

    keys = list(sweep.summary.shares)[:2]
    names = [sweep.names[key] for key in keys]
    trials, study = sweep.complete, sweep.study
    both = [t for t in trials if all(name in t.params for name in names)]
    if len(names) < 2 or len(both) < 8:
        return None
    data, layout = plain(plot_rank(study, params=names, target_name=sweep.metrics[0]))
    data[0] |= numbered(numbers_of(both))
    for name, axis in zip(names, ("xaxis", "yaxis"), strict=True):
        choices = sweep.record.space[name].get("choices")
        if choices is not None:  # in the order of the space
            order = {"categoryorder": "array", "categoryarray": choices}
            layout[axis] |= {"range": None, **order}
    title = " and ".join(shortened(key, 30) for key in keys)
    note = f"Colour: the rank of {sweep.summary.record.metrics[0]}."
    return make_chart("rank", title, note, data, layout, 400)


def slices(sweep: ChartedSweep) -> list[Chart]:
    """Return one chart per parameter: its values against the first objective."""
    from optuna.visualization import plot_slice

    charts: list[Chart] = []
    trials, study = sweep.complete, sweep.study
    numbers = numbers_of(trials)
    keys = {name: key for key, name in sweep.names.items()}
    for name in sweep.known_names(study)[:MAX_SLICES]:
        figure = plot_slice(study, params=[name], target_name=sweep.metrics[0])
        data, layout = plain(figure)
        owners = [numbers[index] for index in data[0]["marker"]["color"]]
        marker = {"color": COLORS["complete"], "opacity": 0.7}
        data[0] |= {"customdata": owners, "marker": marker}
        layout["xaxis"]["title"] = None
        layout["yaxis"] = {"range": sweep.range}
        share = sweep.summary.shares.get(keys[name])
        note = "" if share is None else f"{share_text(share)} of the importance."
        charts.append(
            make_chart(f"slice-{len(charts)}", keys[name], note, data, layout, 250, "third")
        )
    return charts


def _evaluator(shares: dict[str, float]) -> Any:
    """Return an evaluator for `plot_param_importances` that has worked out the shares already."""
    from optuna.importance import BaseImportanceEvaluator

    class Known(BaseImportanceEvaluator):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            return shares

    return Known()
