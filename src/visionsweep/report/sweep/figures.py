"""The charts of a sweep as a whole: history, importances, Pareto front, learning curves."""

from collections.abc import Sequence
from typing import Any

from visionsweep.report.sweep.axes import (
    COLORS,
    SYMBOLS,
    WINNER,
    Chart,
    Trace,
    focus,
    layout,
    rounded,
    text,
    title,
)
from visionsweep.report.sweep.importances import num_best, num_judged
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.report.sweep.summary import Summary
from visionsweep.report.sweep.values import share_text
from visionsweep.text import shortened

MAX_CURVES = 500  # with more, the best ones and an even sample of the others


def objective_axis(record: SweepRecord, reach: float = 1.6) -> tuple[dict[str, Any], str]:
    """Return the axis of the first objective over trials, and a note if it leaves out trials far behind."""
    costs = [record.cost(trial.value) for trial in record.ranked() if trial.value is not None]
    others = [
        record.cost(t.value)
        for t in record.trials
        if t.value is not None and t.state in ("pruned", "running")
    ]
    axis: dict[str, Any] = {"title": title(record.metrics[0])}
    limit = focus(costs, others, reach)
    if limit is None:
        return axis, ""
    best = min(costs)
    margin = 0.05 * (limit - best)
    axis["range"] = sorted([record.cost(best - margin), record.cost(limit)])
    hidden = sum(cost > limit for cost in [*costs, *others])
    side = "below" if record.directions[0] == "maximize" else "above"
    return axis, f"{hidden} trials lie {side} the axis; double-click shows all."


def points(
    name: str, trials: Sequence[SweptTrial], xs: Sequence[float], ys: Sequence[float], **marker: Any
) -> Trace:
    """Return a trace of one point a trial."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [rounded(x) for x in xs],
        "y": [rounded(y) for y in ys],
        "customdata": [trial.number for trial in trials],
        "marker": {"size": 7, **marker},
    }


def state_marker(state: str) -> dict[str, Any]:
    """Return colour and symbol of a state."""
    return {"color": COLORS[state], "symbol": SYMBOLS[state]}


def star(trials: Sequence[SweptTrial], xs: Sequence[float], ys: Sequence[float]) -> Trace:
    """Return the mark of the winner."""
    outline = {"color": "#5f4200", "width": 1}
    return points("best", trials, xs, ys, size=14, symbol="star", color=WINNER, line=outline)


def history(summary: Summary) -> Chart | None:
    """Return the first objective over trials, with the best so far."""
    record = summary.record
    data: list[Trace] = []
    for state in ("pruned", "running", "complete"):
        trials = [
            trial for trial in record.trials if trial.state == state and trial.value is not None
        ]
        if not trials:
            continue
        values = [trial.value for trial in trials if trial.value is not None]
        trace = points(
            state, trials, [trial.number for trial in trials], values, **state_marker(state)
        )
        if state == "complete" and any(trial.seed_std is not None for trial in trials):
            spread = [rounded(trial.seed_std or 0.0) for trial in trials]
            trace["error_y"] = {
                "type": "data",
                "array": spread,
                "thickness": 1,
                "width": 2,
                "color": COLORS[state],
            }
        data.append(trace)
    if not data:
        return None
    best: list[tuple[int, float]] = []
    for trial in record.trials:
        if trial.state == "complete" and trial.value is not None:
            value = trial.value
            if not best or record.cost(value) < record.cost(best[-1][1]):
                best.append((trial.number, value))
    if best:
        best.append((record.trials[-1].number, best[-1][1]))
        line = {"shape": "hv", "color": "#444444", "width": 1.5}
        xs, ys = zip(*best, strict=True)
        data.insert(
            0,
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": xs,
                "y": ys,
                "line": line,
                "hoverinfo": "skip",
            },
        )
    winner = summary.winner
    if winner is not None and winner.value is not None:
        data.append(star([winner], [winner.number], [winner.value]))
    axis, note = objective_axis(record)
    if record.num_seeds > 1:
        note = f"Bars: standard deviation over {record.num_seeds} seeds. {note}".strip()
    return Chart(
        "history",
        "Optimization history",
        note,
        data,
        layout(340, xaxis=_counted("trial", record.trials[-1].number), yaxis=axis),
    )


def _counted(name: str, last: int) -> dict[str, Any]:
    """Return an axis of whole numbers."""
    axis: dict[str, Any] = {"title": title(name)}
    return axis | ({"dtick": 1} if last <= 12 else {})


def importance_bars(summary: Summary) -> Chart | None:
    """Return the parameters' shares, the largest on top."""
    shares = dict(list(summary.shares.items())[:20])
    if len(shares) < 2:
        return None
    names = [text(shortened(key, 32)) for key in shares]
    bars: Trace = {
        "type": "bar",
        "orientation": "h",
        "x": [rounded(100 * share) for share in shares.values()],
        "y": list(range(len(shares))),
        "text": [text(share_text(share)) for share in shares.values()],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": COLORS["complete"]},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    best, judged = num_best(summary.record), num_judged(summary.record)
    note = f"How far the best {best} trials differ from all {judged} (PED-ANOVA)."
    others = [shortened(key, 32) for key in summary.record.space if key not in summary.shares]
    if others:
        named = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
        note += f" Not judged, since few of the best have them: {named}."
    axis = {
        "tickvals": bars["y"],
        "ticktext": names,
        "autorange": "reversed",
        "ticks": "",
        "showgrid": False,
    }
    xaxis = {"title": title("share in percent"), "rangemode": "tozero"}
    made = layout(max(200, min(340, 90 + 30 * len(shares))), xaxis=xaxis, yaxis=axis, bargap=0.35)
    made["margin"] = {"l": 60, "r": 40, "t": 10, "b": 46}
    return Chart("importances", "What mattered", note, [bars], made)


def pareto_charts(summary: Summary) -> list[Chart]:
    """Return a chart for each further objective against the first."""
    record = summary.record
    front, ranked = {trial.number for trial in record.pareto()}, summary.ranked
    charts = []
    for i, name in enumerate(record.metrics[1:], start=1):
        data = []
        for label, is_front, color in (
            ("beaten", False, COLORS["pruned"]),
            ("Pareto-optimal", True, COLORS["complete"]),
        ):
            trials = [trial for trial in ranked if (trial.number in front) == is_front]
            xs, ys = [trial.values[i] for trial in trials], [trial.values[0] for trial in trials]
            data.append(
                points(
                    label,
                    trials,
                    xs,
                    ys,
                    color=color,
                    symbol="circle" if is_front else "circle-open",
                )
            )
        if summary.winner is not None:
            data.append(
                star([summary.winner], [summary.winner.values[i]], [summary.winner.values[0]])
            )
        note = f"{record.metrics[0]}: {record.directions[0]}; {name}: {record.directions[i]}."
        axes = {"xaxis": {"title": title(name)}, "yaxis": {"title": title(record.metrics[0])}}
        if ranked:
            charts.append(
                Chart(f"pareto-{i}", f"Pareto front: {name}", note, data, layout(340, **axes))
            )
    return charts


def learning_curves(summary: Summary) -> Chart | None:
    """Return the objective over epochs: a line a trial, all of a state in one trace, with gaps between them."""
    record = summary.record
    drawn = _chosen([trial for trial in record.trials if trial.curve], summary)
    if not drawn:
        return None
    data = []
    styles = {
        "pruned": {"width": 1, "color": "rgba(140,140,140,0.55)", "dash": "dot"},
        "failed": {"width": 1, "color": "rgba(213,94,0,0.7)", "dash": "dashdot"},
        "complete": {"width": 1, "color": "rgba(0,114,178,0.45)"},
        "running": {"width": 1.5, "color": COLORS["running"]},
    }
    for state, line in styles.items():
        trials = [trial for trial in drawn if trial.state == state]
        if trials:
            data.append(_curves(state, trials, line))
    stopped = [trial for trial in drawn if trial.state == "pruned"]
    if stopped:
        ends = [trial.curve[-1] for trial in stopped]
        marks = points(
            "",
            stopped,
            [end[0] for end in ends],
            [end[1] for end in ends],
            symbol="x-thin",
            size=6,
            line={"width": 1.2, "color": "#707070"},
        )
        data.append(marks | {"showlegend": False, "meta": "curve"})
    winner = summary.winner
    if winner is not None and winner.curve:
        data.append(_curves("best", [winner], {"width": 3, "color": WINNER}))
    axis, note = objective_axis(record, reach=3.0)
    notes = [note.replace("trials lie", "trials end")] if note else []
    if len(drawn) < sum(bool(trial.curve) for trial in record.trials):
        notes.append(f"Shown: the best and a sample of the others, {len(drawn)} trials.")
    if record.num_seeds > 1:
        notes.append("The first seed of each trial.")
    last = max(trial.curve[-1][0] for trial in drawn)
    xaxis = _counted("epoch", last) | {"range": [0 if last > 1 else 0.5, last + 0.02 * last]}
    made = layout(360, xaxis=xaxis, yaxis=axis)
    return Chart("curves", "Learning curves", " ".join(notes), data, made, select="lines")


def _chosen(trials: list[SweptTrial], summary: Summary) -> list[SweptTrial]:
    if len(trials) <= MAX_CURVES:
        return trials
    best = {trial.number for trial in summary.ranked[: MAX_CURVES // 2]}
    others = [trial for trial in trials if trial.number not in best]
    step = len(others) / (MAX_CURVES - MAX_CURVES // 2)
    best |= {others[int(i * step)].number for i in range(MAX_CURVES - MAX_CURVES // 2)}
    return [trial for trial in trials if trial.number in best]


def _curves(name: str, trials: Sequence[SweptTrial], line: dict[str, Any]) -> Trace:
    xs: list[float | None] = []
    ys: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        for epoch, value in trial.curve:
            xs.append(epoch)
            ys.append(rounded(value))
        xs.append(None)  # a gap, so that one trace holds all lines
        ys.append(None)
        numbers += [trial.number] * (len(trial.curve) + 1)
    is_short = max(len(trial.curve) for trial in trials) == 1
    mode = "lines+markers" if is_short else "lines"  # a line of one point is not seen
    trace: Trace = {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": xs,
        "y": ys,
        "customdata": numbers,
    }
    return trace | {"line": line, "connectgaps": False, "meta": "curve"}
