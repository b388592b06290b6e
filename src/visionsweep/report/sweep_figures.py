"""The charts of a sweep as a whole: history, importances, Pareto front, learning curves, timeline."""

import heapq
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from visionsweep.report.sweep_axes import (
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
from visionsweep.report.sweep_importances import num_best, num_judged
from visionsweep.report.sweep_record import SweepRecord, SweptTrial, TrialState
from visionsweep.report.sweep_summary import Summary
from visionsweep.report.sweep_values import share_text, shortened

MAX_CURVES = 500  # with more, the best ones and an even sample of the others
_STATES: tuple[TrialState, ...] = get_args(TrialState)


def objective_axis(record: SweepRecord, reach: float = 1.6) -> tuple[dict[str, Any], str]:
    """Return the axis of the first objective over trials, and a note if it leaves out trials far behind."""
    costs = [record.cost(trial.value) for trial in record.ranked() if trial.value is not None]
    others = [record.cost(t.value) for t in record.trials if t.value is not None and t.state in ("pruned", "running")]
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


def points(name: str, trials: Sequence[SweptTrial], xs: Sequence[float], ys: Sequence[float], **marker: Any) -> Trace:
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
    return points("best", trials, xs, ys, symbol="star", color=WINNER, line=outline) | {
        "marker": {"size": 14, "symbol": "star", "color": WINNER, "line": outline}
    }


def history(summary: Summary) -> Chart | None:
    """Return the first objective over trials, with the best so far."""
    record = summary.record
    data: list[Trace] = []
    for state in ("pruned", "running", "complete"):
        trials = [trial for trial in record.trials if trial.state == state and trial.value is not None]
        if not trials:
            continue
        values = [trial.value for trial in trials if trial.value is not None]
        trace = points(state, trials, [trial.number for trial in trials], values, **state_marker(state))
        if state == "complete" and any(trial.seed_std is not None for trial in trials):
            spread = [rounded(trial.seed_std or 0.0) for trial in trials]
            trace["error_y"] = {"type": "data", "array": spread, "thickness": 1, "width": 2, "color": COLORS[state]}
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
    axis = {"tickvals": bars["y"], "ticktext": names, "autorange": "reversed", "ticks": "", "showgrid": False}
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
            data.append(points(label, trials, xs, ys, color=color, symbol="circle" if is_front else "circle-open"))
        if summary.winner is not None:
            data.append(star([summary.winner], [summary.winner.values[i]], [summary.winner.values[0]]))
        note = f"{record.metrics[0]}: {record.directions[0]}; {name}: {record.directions[i]}."
        axes = {"xaxis": {"title": title(name)}, "yaxis": {"title": title(record.metrics[0])}}
        if ranked:
            charts.append(Chart(f"pareto-{i}", f"Pareto front: {name}", note, data, layout(340, **axes)))
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
    trace: Trace = {"type": "scatter", "mode": mode, "name": name, "x": xs, "y": ys, "customdata": numbers}
    return trace | {"line": line, "connectgaps": False, "meta": "curve"}


def timeline(summary: Summary) -> Chart | None:
    """Return when each trial ran, on as few lines as trials ran at once: those are the workers' slots."""
    record = summary.record
    trials = sorted((t for t in record.trials if t.start is not None and t.duplicate_of is None), key=_start)
    if not trials:
        return None
    begin = _start(trials[0])
    now = max([_start(trial) for trial in trials] + [t.end for t in trials if t.end is not None])
    slots = _slots(trials, now)
    unit, size = next(
        (u for u in (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0)) if now - begin < 200 * u[1]),
        ("days", 86400.0),
    )
    least = max(now - begin, 1.0) * 0.002  # seconds; a shorter one would not be seen
    data = []
    groups: list[tuple[str, str, list[SweptTrial]]] = [
        (state, COLORS[state], [t for t in trials if t.state == state and t is not summary.winner]) for state in _STATES
    ]
    groups.append(("best", WINNER, [trial for trial in trials if trial is summary.winner]))
    for name, color, members in groups:
        if not members:
            continue
        spans = [max(least, _end(trial, now) - _start(trial)) / size for trial in members]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "base": [rounded((_start(trial) - begin) / size) for trial in members],
                "x": [rounded(span) for span in spans],
                "y": [slots[trial.number] + 1 for trial in members],
                "customdata": [trial.number for trial in members],
                "marker": {"color": color, "line": {"color": "#ffffff", "width": 0.5}},
            }
        )
    num = max(slots.values()) + 1
    since = datetime.fromtimestamp(begin).astimezone().strftime("%Y-%m-%d %H:%M")
    yaxis = {"title": title("trials at once"), "range": [num + 0.6, 0.4], "dtick": 1 if num <= 12 else None}
    made = layout(360, xaxis={"title": title(f"{unit} since {since}")}, yaxis=yaxis, barmode="overlay", bargap=0.25)
    return Chart("timeline", "Timeline", "", data, made)


def _start(trial: SweptTrial) -> float:
    assert trial.start is not None
    return trial.start


def _end(trial: SweptTrial, now: float) -> float:
    return now if trial.end is None else max(trial.end, _start(trial))


def _slots(trials: Sequence[SweptTrial], now: float) -> dict[int, int]:
    """Return a slot for each trial (by start), the lowest that is free."""
    slots: dict[int, int] = {}
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for trial in trials:
        while busy and busy[0][0] <= _start(trial):
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free) if free else len(busy)
        slots[trial.number] = slot
        heapq.heappush(busy, (_end(trial, now), slot))
    return slots
