"""The leaderboard of a sweep: as rows, as a table for MLflow, and in Markdown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionsweep.report.sweep import markdown as md
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.report.sweep.winner import (
    Summary,
    counts_sentence,
    differences,
    gap_sentence,
    noise_sentence,
    space_rows,
    summarize,
    value_text,
    why_sentence,
    won_sentence,
)
from visionsweep.text import counted, duration_text, short_value, shortened

MAX_DESCRIPTION = 8000  # characters of an MLflow tag
_LATER_COLUMNS = ("epochs", "seconds", "link", "directory", "duplicate_of", "error")


@dataclass(frozen=True)
class LeaderboardRow(SweptTrial):
    """One trial on the leaderboard."""

    rank: int | None = None  # from 1; None if not complete


def leaderboard_rows(record: SweepRecord, limit: int | None = None) -> list[LeaderboardRow]:
    """Return trials by state (complete, running, pruned, failed), the best first within a state."""
    ranked = record.ranked()
    ranks = {trial.number: rank for rank, trial in enumerate(ranked, start=1)}

    def place(trial: SweptTrial) -> tuple[int, float, int]:
        order = ("complete", "running", "pruned", "failed").index(trial.state)
        cost = (
            math.inf if trial.value is None or trial.state != "pruned" else record.cost(trial.value)
        )
        return order, cost, trial.number

    others = sorted((trial for trial in record.trials if trial.number not in ranks), key=place)
    return [
        LeaderboardRow(**vars(trial), rank=ranks.get(trial.number))
        for trial in [*ranked, *others][:limit]
    ]


def leaderboard_table(record: SweepRecord, links: Mapping[int, str]) -> dict[str, Any]:
    """Return all trials in the JSON form of `mlflow.log_table`: `columns`, and one row per trial.

    `links` maps a trial's number to the URL of its run. NaN and what a trial lacks are None.
    """
    rows = leaderboard_rows(record)
    columns: dict[str, list[Any]] = {
        "rank": [row.rank for row in rows],
        "trial": [row.number for row in rows],
        "state": [row.state for row in rows],
    }
    for i, metric in enumerate(record.metrics):
        columns[metric] = [_finite(row.values[i]) if i < len(row.values) else None for row in rows]
    columns |= _used("seed_std", [_finite(row.seed_std) for row in rows])
    columns |= _used("fold_mean", [_finite(row.fold_mean) for row in rows])
    columns |= _used("fold_std", [_finite(row.fold_std) for row in rows])
    taken = {*columns, *_LATER_COLUMNS}
    for key in record.space:
        name = f"params.{key}" if key in taken else key
        columns[name] = [_cell(row.params.get(key)) for row in rows]
    columns["epochs"] = [row.epochs for row in rows]
    columns["seconds"] = [_finite(row.seconds) for row in rows]
    columns |= _used("link", [links.get(row.number) for row in rows])
    columns["directory"] = [row.directory for row in rows]
    columns |= _used("duplicate_of", [row.duplicate_of for row in rows])
    columns |= _used("error", [row.error for row in rows])
    return {
        "columns": list(columns),
        "data": [list(cells) for cells in zip(*columns.values(), strict=True)],
    }


def _used(name: str, cells: list[Any]) -> dict[str, list[Any]]:
    return {name: cells} if any(cell is not None for cell in cells) else {}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return _finite(value)
    return value if value is None or isinstance(value, bool | int | str) else short_value(value)


@dataclass(frozen=True)
class _Room:
    """The size of each part of the description."""

    rows: int
    params: int  # columns of the table, and lines of the comparison
    space: int  # lines
    width: int  # characters of a value


_ROOMS = (
    _Room(10, 8, 40, 32),
    _Room(10, 6, 20, 24),
    _Room(10, 4, 8, 20),
    _Room(5, 3, 4, 16),
    _Room(3, 1, 0, 12),
)


def description_markdown(
    record: SweepRecord, links: Mapping[int, str], runs_page: str | None = None
) -> str:
    """Return the description of a sweep's run in MLflow (`mlflow.note.content`).

    Who won and why, the best ten trials, the search space. Parts are shortened until they fit
    into MLflow's 8000 characters, and the text says so. `links` maps a trial's number to the URL
    of its run; `runs_page` is the URL of the table of all of them.
    """
    summary = summarize(record)
    for room in _ROOMS:
        text = _description(summary, links, room, runs_page)
        if len(text) <= MAX_DESCRIPTION:
            return text
    text = _description(summary, {}, _Room(0, 0, 0, 12))
    return text if len(text) <= MAX_DESCRIPTION else f"{text[: MAX_DESCRIPTION - 4]} ..."


def _description(
    summary: Summary, links: Mapping[int, str], room: _Room, runs_page: str | None = None
) -> str:
    head = [won_sentence(summary, md.MARKUP), why_sentence(summary, md.MARKUP)]
    num_running = summary.record.counts().get("running", 0)
    if num_running:
        running = f"The sweep is not over: {counted(num_running, 'trial')} running."
        head.append(md.plain(running))
    head += [md.plain(counts_sentence(summary)), md.plain(noise_sentence(summary))]
    parts = [line for line in head if line]
    if runs_page is not None:
        parts.append(md.link("All trials in a table, best first", runs_page))
    parts += _top(summary, links, room)
    parts += _comparison(summary, room)
    parts += _space(summary, room)
    return "\n\n".join(parts) + "\n"


def _top(summary: Summary, links: Mapping[int, str], room: _Room) -> list[str]:
    record = summary.record
    # a trial that took another's value would repeat its row
    complete = (row for row in leaderboard_rows(record) if row.rank is not None)
    rows = [row for row in complete if row.duplicate_of is None]
    shown = rows[: room.rows]
    if not shown:
        return []
    keys = [key for key in summary.ordered_keys() if any(key in row.params for row in shown)]
    columns = keys[: room.params]
    header = ["rank", "trial", *record.metrics, *columns, "epochs", "time"]
    lines = [[md.plain(shortened(name, room.width)) for name in header]]
    for row in shown:
        lines.append(
            [
                str(row.rank),
                md.link(f"#{row.number}", links.get(row.number)),
                *[md.plain(value_text(row, i)) for i in range(len(record.metrics))],
                *[_param_cell(row.params, key, room.width) for key in columns],
                "" if row.epochs is None else str(row.epochs),
                "" if row.seconds is None else duration_text(row.seconds),
            ]
        )
    left_out = []
    if len(rows) > len(shown):
        left_out.append(f"the best {len(shown)} of {len(rows)} complete trials")
    if len(keys) > len(columns):
        left_out.append(f"{len(columns)} of {len(keys)} parameters, those that mattered most first")
    parts = ["### Leaderboard", md.table(lines)]
    if left_out:
        all_of_it = "The table and the page among the artifacts have all."
        parts.append(md.plain(f"Shown: {'; '.join(left_out)}. {all_of_it}"))
    return parts


def _param_cell(params: Mapping[str, Any], key: str, width: int) -> str:
    return md.plain(short_value(params[key], limit=width)) if key in params else ""


def _comparison(summary: Summary, room: _Room) -> list[str]:
    gap = gap_sentence(summary, md.MARKUP)
    if not gap:
        return []
    found = differences(summary)
    parts = ["### Winner and runner-up", gap]
    winner, second = summary.winner, summary.runner_up
    assert winner is not None
    assert second is not None
    if found and room.params:
        lines = [["parameter", f"#{winner.number}", f"#{second.number}"]]
        for cells in found[: room.params]:
            lines.append([md.plain(shortened(cell, 2 * room.width)) for cell in cells])
        parts.append(md.table(lines))
    if len(found) > room.params:
        parts.append(md.plain(f"{len(found) - room.params} more parameters differ."))
    return parts


def _space(summary: Summary, room: _Room) -> list[str]:
    rows = space_rows(summary.record.space)
    shown = rows[: room.space]
    if not shown:
        return []
    lines = [["parameter", "drawn from"]]
    for key, text in shown:
        cells = shortened(key, 2 * room.width), shortened(text, 4 * room.width)
        lines.append([md.plain(cell) for cell in cells])
    parts = ["### Search space", md.table(lines)]
    if len(rows) > len(shown):
        parts.append(md.plain(f"{len(rows) - len(shown)} more parameters."))
    return parts
