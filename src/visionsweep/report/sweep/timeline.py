"""The timeline of a sweep: when each trial ran, and how many at once."""

import heapq
from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from visionsweep.report.sweep.axes import COLORS, WINNER, Chart, layout, rounded, title
from visionsweep.report.sweep.record import SweptTrial, TrialState
from visionsweep.report.sweep.summary import Summary

_STATES: tuple[TrialState, ...] = get_args(TrialState)


def timeline(summary: Summary) -> Chart | None:
    """Return when each trial ran, on as few lines as trials ran at once: those are the workers' slots."""
    record = summary.record
    trials = sorted(
        (t for t in record.trials if t.start is not None and t.duplicate_of is None), key=_start
    )
    if not trials:
        return None
    begin = _start(trials[0])
    now = max([_start(trial) for trial in trials] + [t.end for t in trials if t.end is not None])
    slots = _slots(trials, now)
    unit, size = next(
        (
            u
            for u in (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0))
            if now - begin < 200 * u[1]
        ),
        ("days", 86400.0),
    )
    least = max(now - begin, 1.0) * 0.002  # seconds; a shorter one would not be seen
    data = []
    groups: list[tuple[str, str, list[SweptTrial]]] = [
        (state, COLORS[state], [t for t in trials if t.state == state and t is not summary.winner])
        for state in _STATES
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
    yaxis = {
        "title": title("trials at once"),
        "range": [num + 0.6, 0.4],
        "dtick": 1 if num <= 12 else None,
    }
    made = layout(
        360,
        xaxis={"title": title(f"{unit} since {since}")},
        yaxis=yaxis,
        barmode="overlay",
        bargap=0.25,
    )
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
