"""The leaderboard of a sweep: as rows, as MLflow's table, and as the Markdown of the parent run's description."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionsweep.report.sweep import markdown as md
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.report.sweep.summary import (
    Summary,
    counts_sentence,
    differences,
    gap_sentence,
    space_rows,
    summarize,
    value_text,
    why_sentence,
    won_sentence,
)
from visionsweep.report.sweep.values import duration_text, short_text
from visionsweep.text import shortened

MAX_DESCRIPTION = 8000  # characters of an MLflow tag


@dataclass(frozen=True)
class LeaderboardRow(SweptTrial):
    """One trial on the leaderboard."""

    rank: int | None = None  # from 1; None: it is not complete


def leaderboard_rows(record: SweepRecord, limit: int | None = None) -> list[LeaderboardRow]:
    """Return the first `limit` trials: the complete ones best first, then running, pruned (best first), failed ones."""
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
    """Return all trials in the JSON form of `mlflow.log_table`: `columns` and `data`, a row a trial.

    `links` maps a trial's number to the URL of its run. What a trial does not have is None, as is NaN.
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
    for key in record.space:
        name = (
            key
            if key
            not in (*columns, "epochs", "seconds", "link", "directory", "duplicate_of", "error")
            else ""
        )
        columns[name or f"params.{key}"] = [_cell(row.params.get(key)) for row in rows]
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
    return value if value is None or isinstance(value, bool | int | str) else short_text(value)


@dataclass(frozen=True)
class _Room:
    """How much of each part the description has."""

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


def description_markdown(record: SweepRecord, links: Mapping[int, str]) -> str:
    """Return the parent run's description (`mlflow.note.content`): who won, why, the best ten, the search space.

    Never longer than MLflow's 8000 characters: parts are shortened until they fit, and the text says so. `links` maps
    a trial's number to the URL of its run.
    """
    summary = summarize(record)
    for room in _ROOMS:
        text = _description(summary, links, room)
        if len(text) <= MAX_DESCRIPTION:
            return text
    text = _description(summary, {}, _Room(0, 0, 0, 12))
    return text if len(text) <= MAX_DESCRIPTION else f"{text[: MAX_DESCRIPTION - 4]} ..."


def _description(summary: Summary, links: Mapping[int, str], room: _Room) -> str:
    head = [won_sentence(summary, md.MARKUP), why_sentence(summary, md.MARKUP)]
    num_running = summary.record.counts().get("running", 0)
    if num_running:
        head.append(
            md.plain(
                f"The sweep is not over: {num_running} trial{'s' * (num_running > 1)} running."
            )
        )
    head.append(md.plain(counts_sentence(summary)))
    parts = [line for line in head if line]
    parts += _top(summary, links, room)
    parts += _comparison(summary, room)
    parts += _space(summary, room)
    return "\n\n".join(parts) + "\n"


def _top(summary: Summary, links: Mapping[int, str], room: _Room) -> list[str]:
    record = summary.record
    # A trial that took another's value would only repeat its row.
    rows = [
        row for row in leaderboard_rows(record) if row.rank is not None and row.duplicate_of is None
    ]
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
    note = [
        md.plain(
            f"Shown: {'; '.join(left_out)}. The table and the page among the artifacts have all."
        )
    ]
    return ["### Leaderboard", md.table(lines), *(note if left_out else [])]


def _param_cell(params: Mapping[str, Any], key: str, width: int) -> str:
    return md.plain(short_text(params[key], limit=width)) if key in params else ""


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
    lines: Sequence[Sequence[str]] = [
        ["parameter", "drawn from"],
        *[
            [md.plain(shortened(key, 2 * room.width)), md.plain(shortened(text, 4 * room.width))]
            for key, text in shown
        ],
    ]
    more = (
        [md.plain(f"{len(rows) - len(shown)} more parameters.")] if len(rows) > len(shown) else []
    )
    return ["### Search space", md.table(lines), *more]
