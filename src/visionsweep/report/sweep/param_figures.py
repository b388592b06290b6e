"""The charts of a sweep's parameters: slices, parallel coordinates, and how the two most important ones interact."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.sweep.axes import (
    INACTIVE,
    SCALE,
    WINNER,
    Chart,
    ParamAxis,
    Trace,
    layout,
    param_axis,
    rounded,
    text,
)
from visionsweep.report.sweep.figures import objective_axis, points, star, state_marker
from visionsweep.report.sweep.record import SweptTrial
from visionsweep.report.sweep.summary import Summary
from visionsweep.report.sweep.values import objective_text, share_text
from visionsweep.text import shortened

MAX_SLICES = 30
MAX_PARALLEL = 11  # axes that still have room for their names
_MAX_LINES = 600
_BINS = 12  # colours of the lines
_GRID = 40  # cells a side
_BANDWIDTH = 0.09  # of an axis
_MIN_WEIGHT = 0.35  # of a trial's weight at its own place; with less around, nothing is drawn


def _axis(summary: Summary, key: str) -> ParamAxis | None:
    values = [trial.params[key] for trial in summary.record.trials if key in trial.params]
    return (
        param_axis(key, summary.record.space.get(key, {"choices": []}), values) if values else None
    )


def slices(summary: Summary) -> list[Chart]:
    """Return a panel a parameter: its values against the first objective, those that mattered most first."""
    record = summary.record
    objective, _ = objective_axis(record)
    charts: list[Chart] = []
    for key in summary.ordered_keys()[:MAX_SLICES]:
        axis = _axis(summary, key)
        if axis is None:
            continue
        data = []
        for state in ("pruned", "running", "complete"):
            members = [
                t
                for t in record.trials
                if t.state == state and t.value is not None and key in t.params
            ]
            placed = [(trial, axis.position(trial.params[key], trial.number)) for trial in members]
            kept = [
                (trial, x, trial.value)
                for trial, x in placed
                if x is not None and trial.value is not None
            ]
            if kept:
                trials, xs, ys = zip(*kept, strict=True)
                marker = state_marker(state) | {"size": 6}
                data.append(
                    points(state, trials, xs, ys, **marker, opacity=0.8) | {"showlegend": False}
                )
        data += _medians(summary, axis)
        winner = summary.winner
        if winner is not None and winner.value is not None and key in winner.params:
            place = axis.position(winner.params[key], winner.number)
            if place is not None:
                data.append(star([winner], [place], [winner.value]) | {"showlegend": False})
        if data:
            share = (
                f"{share_text(summary.shares[key])} of the importance."
                if key in summary.shares
                else ""
            )
            made = layout(250, xaxis=axis.layout() | {"title": None}, yaxis=objective)
            made["margin"] = {"l": 52, "r": 10, "t": 8, "b": 36}
            charts.append(Chart(f"slice-{len(charts)}", key, share, data, made, width="third"))
    return charts


def _medians(summary: Summary, axis: ParamAxis) -> list[Trace]:
    """Return a short line at the median of the complete trials of each choice."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for index in range(len(axis.choices)):
        values = [
            trial.value
            for trial in summary.ranked
            if trial.value is not None
            and axis.key in trial.params
            and axis.position(trial.params[axis.key], 0) is not None
            and round(axis.position(trial.params[axis.key], 0) or 0) == index
        ]
        if len(values) > 1:
            xs += [index - 0.32, index + 0.32, None]
            ys += [*[rounded(statistics.median(values))] * 2, None]
    line = {"color": "#333333", "width": 2}
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": "median",
        "x": xs,
        "y": ys,
        "line": line,
    }
    return [trace | {"hoverinfo": "skip", "showlegend": False}] if xs else []


def _colors(summary: Summary) -> tuple[dict[int, float], float, float]:
    """Return each complete trial's place on the colour scale (0 worst, 1 best), and the values at its ends."""
    record = summary.record
    trials = [trial for trial in summary.ranked if trial.value is not None]
    costs = [record.cost(trial.value) for trial in trials if trial.value is not None]
    limit = objective_axis(record)[0].get("range")
    best, worst = min(costs), max(costs)
    if limit is not None:
        worst = min(worst, max(record.cost(end) for end in limit))
    # Halves, since the difference of two huge numbers can be infinite.
    room = worst / 2 - best / 2 or 1.0
    shares = [min(1.0, (cost / 2 - best / 2) / room) for cost in costs]
    places = {trial.number: 1 - share for trial, share in zip(trials, shares, strict=True)}
    return places, record.cost(worst), record.cost(best)


def _color_bar(metric: str, worst: float, best: float) -> Trace:
    """Return a trace without points that shows the colour scale, dark for the best."""
    ends = {
        "tickvals": [0, 1],
        "ticktext": [objective_text(worst), objective_text(best)],
        "thickness": 12,
    }
    bar = {
        "title": {"text": text(shortened(metric, 24)), "side": "right"},
        "len": 0.9,
        "outlinewidth": 0,
    } | ends
    marker = {
        "color": [0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": SCALE,
        "showscale": True,
        "colorbar": bar,
        "opacity": 0,
    }
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [None],
        "y": [None],
        "marker": marker,
    }
    return trace | {"showlegend": False, "hoverinfo": "skip"}


def parallel(summary: Summary) -> Chart | None:
    """Return a line a trial across the parameters and the objective; dark lines are the best."""
    record = summary.record
    all_axes = [axis for key in summary.ordered_keys() if (axis := _axis(summary, key)) is not None]
    axes = all_axes[:MAX_PARALLEL]
    complete = [trial for trial in summary.ranked if trial.value is not None][:_MAX_LINES]
    if not axes or len(complete) < 2:
        return None
    places, worst, best = _colors(summary)
    others = [trial for trial in record.trials if trial.state == "pruned"][:_MAX_LINES]
    data = []
    if others:
        gray = {"color": "rgba(170,170,170,0.35)", "width": 1}
        data.append(_lines("pruned", others, axes, None, gray))
    for index in range(_BINS):
        members = [t for t in complete if min(_BINS - 1, int(places[t.number] * _BINS)) == index]
        if members:
            line = {"color": _shade((index + 0.5) / _BINS), "width": 1 + 0.8 * index / _BINS}
            data.append(_lines("", members, axes, places, line) | {"showlegend": False})
    winner = summary.winner
    if winner is not None and winner.number in places:
        data.append(_lines("best", [winner], axes, places, {"color": WINNER, "width": 3.5}))
    data.append(_color_bar(record.metrics[0], worst, best))
    note = "Choices are spread a little. A line below an axis: the parameter was not active."
    if len(axes) < len(all_axes):
        note += (
            f" Shown: {len(axes)} of {len(all_axes)} parameters, those that mattered most first."
        )
    return Chart(
        "parallel",
        "Parallel coordinates",
        note,
        data,
        _parallel_layout(axes, record.metrics[0], worst, best),
        select="lines",
        width="full",
    )


def _lines(
    name: str,
    trials: Sequence[SweptTrial],
    axes: Sequence[ParamAxis],
    places: dict[int, float] | None,
    line: dict[str, Any],
) -> Trace:
    xs: list[float | None] = []
    ys: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        for i, axis in enumerate(axes):
            place = (
                axis.fraction(trial.params[axis.key], trial.number)
                if axis.key in trial.params
                else None
            )
            xs.append(i)
            ys.append(INACTIVE if place is None else rounded(place))
        if places is not None:
            xs.append(len(axes))
            ys.append(rounded(places[trial.number]))
        xs.append(None)
        ys.append(None)
        numbers += [trial.number] * (len(axes) + 1 + (places is not None))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": xs,
        "y": ys,
        "customdata": numbers,
        "line": line,
    }


def _parallel_layout(
    axes: Sequence[ParamAxis], metric: str, worst: float, best: float
) -> dict[str, Any]:
    ticks = [axis.ticks() for axis in axes]
    ticks.append([(0.0, objective_text(worst)), (1.0, objective_text(best))])
    names = [axis.key for axis in axes] + [metric]
    plain = {"showarrow": False, "xref": "x", "yref": "y", "font": {"size": 10}}
    annotations: list[dict[str, Any]] = []
    for i, (name, labels) in enumerate(zip(names, ticks, strict=True)):
        lines = "<br>".join(text(shortened(part, 18)) for part in _broken(name))
        head = {
            "x": i,
            "yref": "paper",
            "y": 1,
            "yanchor": "bottom",
            "text": f"<b>{lines}</b>",
            "font": {"size": 11},
        }
        annotations.append(plain | head)
        # With many choices every n-th is named.
        every = -(-len(labels) // 16)
        for place, label in labels[::every]:
            cell = {"x": i, "y": place, "xanchor": "left", "xshift": 4, "text": text(label)}
            annotations.append(plain | cell | {"bgcolor": "rgba(255,255,255,0.75)", "borderpad": 1})
    verticals = [
        {
            "type": "line",
            "x0": i,
            "x1": i,
            "y0": 0,
            "y1": 1,
            "line": {"color": "#888888", "width": 1},
        }
        for i in range(len(names))
    ]
    hidden = {"visible": False, "fixedrange": True}
    xaxis = hidden | {"range": [-0.15, len(names) - 0.55]}
    made = layout(
        400,
        xaxis=xaxis,
        yaxis=hidden | {"range": [-0.2, 1.04]},
        shapes=verticals,
        annotations=annotations,
    )
    made["margin"] = {"l": 16, "r": 16, "t": 74, "b": 8}
    made["legend"] = made["legend"] | {"y": -0.02, "yanchor": "top"}
    return made


def _broken(name: str) -> list[str]:
    """Return a dotted name as two lines: `optim.`, `weight_decay`."""
    head, dot, tail = name.rpartition("." if "." in name else "/")
    return [head + dot, tail] if head else [name]


def _shade(place: float) -> str:
    """Return the colour at a place of the scale."""
    ends = [at for at, _ in SCALE]
    channels = [[int(color[i : i + 2], 16) for _, color in SCALE] for i in (1, 3, 5)]
    return "#" + "".join(
        f"{round(float(np.interp(place, ends, channel))):02x}" for channel in channels
    )


def interaction(summary: Summary) -> Chart | None:
    """Return the two most important parameters against each other, None without two that matter."""
    keys = list(summary.shares)[:2]
    axes = [axis for key in keys if (axis := _axis(summary, key)) is not None]
    trials = [
        t for t in summary.ranked if t.value is not None and all(key in t.params for key in keys)
    ]
    if len(axes) < 2 or len(trials) < 8:
        return None
    across, up = axes
    placed = [
        (
            t,
            across.position(t.params[keys[0]], t.number),
            up.position(t.params[keys[1]], t.number * 7 + 3),
        )
        for t in trials
    ]
    kept = [(trial, x, y) for trial, x, y in placed if x is not None and y is not None]
    if not kept:
        return None
    places, worst, best = _colors(summary)
    data: list[Trace] = []
    note = "Colour: the objective, dark is good."
    if not across.choices and not up.choices:
        data.append(_surface(across, up, kept, places))
        note += " Surface: mean of the trials nearby."
    members, xs, ys = zip(*kept, strict=True)
    shades = [_shade(places[trial.number]) for trial in members]
    outline = {"color": "#ffffff", "width": 1}
    data.append(
        points("", members, xs, ys, color=shades, size=9, line=outline) | {"showlegend": False}
    )
    if members[0] is summary.winner:
        data.append(star(members[:1], xs[:1], ys[:1]) | {"showlegend": False})
    data.append(_color_bar(summary.record.metrics[0], worst, best))
    made = layout(400, xaxis=across.layout(), yaxis=up.layout())
    made["margin"] = {"l": 70, "r": 10, "t": 10, "b": 50}
    head = f"{shortened(keys[0], 30)} and {shortened(keys[1], 30)}"
    return Chart("interaction", head, note, data, made)


def _surface(
    across: ParamAxis,
    up: ParamAxis,
    kept: Sequence[tuple[SweptTrial, float, float]],
    places: dict[int, float],
) -> Trace:
    """Return the mean of the trials around each cell, weighed by a Gaussian (Nadaraya and Watson's estimator)."""
    grid = (np.arange(_GRID) + 0.5) / _GRID
    xs = np.array([across.fraction(x, 0) for _, x, _ in kept], dtype=np.float64)
    ys = np.array([up.fraction(y, 0) for _, _, y in kept], dtype=np.float64)
    values = np.array([places[trial.number] for trial, _, _ in kept])
    near_x = np.exp(-0.5 * ((grid[:, None] - xs) / _BANDWIDTH) ** 2)
    near_y = np.exp(-0.5 * ((grid[:, None] - ys) / _BANDWIDTH) ** 2)
    weights = near_y @ near_x.T
    means = (near_y * values) @ near_x.T / np.maximum(weights, 1e-12)
    rows = [
        [
            rounded(float(mean)) if weight >= _MIN_WEIGHT else None
            for mean, weight in zip(*pair, strict=True)
        ]
        for pair in zip(means, weights, strict=True)
    ]
    trace: Trace = {
        "type": "heatmap",
        "z": rows,
        "x": _cells(across, grid),
        "y": _cells(up, grid),
        "zmin": 0,
        "zmax": 1,
    }
    return trace | {"colorscale": SCALE, "showscale": False, "hoverinfo": "skip", "opacity": 0.75}


def _cells(axis: ParamAxis, grid: NDArray[np.float64]) -> list[float | None]:
    if axis.is_log:
        return [rounded(float(axis.low * (axis.high / axis.low) ** place)) for place in grid]
    return [rounded(float(axis.low + (axis.high - axis.low) * place)) for place in grid]
