"""The page of a sweep: one HTML file that needs no network, no server and no other file.

MLflow shows it in `<iframe sandbox="allow-scripts">`: no storage, no pop-ups.
"""

import base64
import functools
import gzip
import html
import json
import re
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from visionsweep.errors import UserError
from visionsweep.report.sweep.axes import objective_range, text
from visionsweep.report.sweep.chart import Chart
from visionsweep.report.sweep.charts import make_charts
from visionsweep.report.sweep.findings import Findings, read_findings
from visionsweep.report.sweep.leaderboard import LeaderboardRow, leaderboard_rows
from visionsweep.report.sweep.record import SweepRecord, read_sweep
from visionsweep.report.sweep.sections import (
    classes_section,
    command_section,
    copies_section,
    effects_section,
    failures_section,
    mistakes_section,
    ranges_section,
    suspects_section,
)
from visionsweep.report.sweep.winner import (
    Markup,
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
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import REPORT, TRIALS
from visionsweep.text import duration_text, short_value, shortened

TEMPLATE = "page.html"
MAX_ROWS = 1000  # of the leaderboard
_HOVER_LINES = 14

_escape = functools.partial(html.escape, quote=True)
_MARKUP = Markup(
    plain=_escape,
    code=lambda value: f"<code>{_escape(value)}</code>",
    strong=lambda value: f"<strong>{_escape(value)}</strong>",
)


def write_report(sweep_dir: Path, record: SweepRecord | None = None) -> Path:
    """Write the report of a sweep into its directory, atomically, and return where it is.

    ``record``: the sweep as read, if it is known already. Raises `UserError` if plotly is missing.
    """
    record = read_sweep(sweep_dir) if record is None else record
    path = sweep_dir / REPORT
    write_text(path, sweep_page(record, read_findings(sweep_dir, record)))
    return path


def sweep_page(record: SweepRecord, findings: Findings | None = None) -> str:
    """Return the page of a sweep as HTML: 2 to 3 MB, most of it plotly's code, compressed.

    ``findings``: what the predictions of its runs tell; without them the page has no such parts.
    """
    findings = findings or Findings()
    summary = summarize(record)
    charts = make_charts(summary)
    parts = {
        "title": _escape(record.name),
        "status": _status(record),
        "head": _head(summary, findings),
        "comparison": _comparison(summary),
        "command": command_section(findings),
        "ranges": ranges_section(findings),
        "leaderboard": _leaderboard(summary, findings.intervals),
        "effects": effects_section(summary),
        "classes": classes_section(summary, findings),
        "mistakes": mistakes_section(findings),
        "suspects": suspects_section(findings),
        "copies": copies_section(findings),
        "failures": failures_section(summary),
        "charts": _frames([chart for chart in charts if chart.width != "third"]),
        "slices": _slices(summary, [chart for chart in charts if chart.width == "third"]),
        "space": _space(record),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(_time(record))),
        "content": _json(
            {
                "charts": [_drawn(chart) for chart in charts],
                "trials": _hover(summary),
                "winner": None if summary.winner is None else summary.winner.number,
            }
        ),
        "plotly": plotly_base64() if charts else "",
    }
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    # in one pass: braces in a name are no placeholder
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _time(record: SweepRecord) -> float:
    """Return the time that the page shows: now, or the end of a sweep that is over."""
    ends = [trial.end for trial in record.trials]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else time.time()


@functools.cache
def plotly_base64() -> str:
    """Return plotly.js, gzip and base64: 1.9 MB of text in place of 4.8."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the page of a sweep needs plotly: pip install plotly")
    code = Path(spec.submodule_search_locations[0], "package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(code, 9, mtime=0)).decode("ascii")


def _json(content: Any) -> str:
    """Return JSON for a script element: no `<` can end it."""
    encoded = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return encoded.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _drawn(chart: Chart) -> dict[str, Any]:
    return {"id": chart.id, "data": chart.data, "layout": chart.layout}


def _hover(summary: Summary) -> dict[int, list[str]]:
    """Return the lines that the charts show of each trial, as plotly's HTML."""
    lines = {}
    for trial in summary.record.trials:
        values = [
            f"{name} {value_text(trial, i)}"
            for i, name in enumerate(summary.record.metrics)
            if value_text(trial, i)
        ]
        params = [
            f"{shortened(key, 40)}={short_value(value, limit=40)}"
            for key, value in summary.params_of(trial).items()
        ]
        if len(params) > _HOVER_LINES:
            params[_HOVER_LINES:] = [f"and {len(params) - _HOVER_LINES} more"]
        lines[trial.number] = [
            text(line) for line in (f"#{trial.number} {trial.state}", *values, *params)
        ]
    return lines


def _status(record: SweepRecord) -> str:
    num_running = record.counts().get("running", 0)
    if num_running:
        return f'<span class="badge running">{num_running} running</span>'
    return (
        '<span class="badge">finished</span>'
        if record.trials
        else '<span class="badge">empty</span>'
    )


def _head(summary: Summary, findings: Findings) -> str:
    lines = [
        *(("expected", _as_sentence(line)) for line in findings.confirmation),
        ("won", won_sentence(summary, _MARKUP)),
        ("expected", _as_sentence(findings.expected or "")),
        ("why", why_sentence(summary, _MARKUP)),
        ("counts", _escape(counts_sentence(summary))),
        ("counts", _escape(noise_sentence(summary))),
    ]
    return "\n".join(f'<p class="{name}">{line}</p>' for name, line in lines if line)


def _as_sentence(line: str) -> str:
    if not re.match(r"\w+[.=]", line):  # a key keeps its case
        line = line[:1].upper() + line[1:]
    return _escape(line + "." * bool(line))


def _comparison(summary: Summary) -> str:
    gap = gap_sentence(summary, _MARKUP)
    if not gap:
        return ""
    assert summary.winner is not None
    assert summary.runner_up is not None
    rows = "".join(
        f"<tr><td><code>{_escape(key)}</code></td>"
        f"<td>{_escape(mine)}</td><td>{_escape(theirs)}</td></tr>"
        for key, mine, theirs in differences(summary)
    )
    numbers = f"<th>#{summary.winner.number}</th><th>#{summary.runner_up.number}</th>"
    head = f"<tr><th>differs in</th>{numbers}</tr>"
    table = f"<table>{head}{rows}</table>" if rows else ""
    return f'<div class="half"><h3>Winner and runner-up</h3><p>{gap}</p>{table}</div>'


def _leaderboard(summary: Summary, intervals: Mapping[int, tuple[float, float]]) -> str:
    record = summary.record
    rows = leaderboard_rows(record, MAX_ROWS)
    if not rows:
        return ""
    keys = summary.ordered_keys()
    between = ["95 %"] if intervals else []
    names = ["rank", "trial", "state", *record.metrics[:1], *between, *record.metrics[1:]]
    names += [*keys, "epochs", "time", "directory"]
    head = "".join(
        f'<th title="{_escape(name)}"><button>{_breakable(name)}</button></th>' for name in names
    )
    body = "\n".join(
        _table_row(row, _cells(row, len(record.metrics), keys, intervals)) for row in rows
    )
    more = len(record.trials) - len(rows)
    note = f"<p class='note'>{more} more trials are in {TRIALS}.</p>" if more else ""
    table = f'<table id="leaderboard"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>{note}'


def _cells(
    row: LeaderboardRow,
    num_objectives: int,
    keys: Sequence[str],
    intervals: Mapping[int, tuple[float, float]],
) -> list[tuple[str, Any]]:
    """Return the text of each cell, and what its column is sorted by (None: last)."""
    values = [
        (value_text(row, i), row.values[i] if i < len(row.values) else None)
        for i in range(num_objectives)
    ]
    if intervals:
        low, high = intervals.get(row.number, (None, None))
        values.insert(1, ("" if low is None else f"{low:.3f} to {high:.3f}", low))
    return [
        ("" if row.rank is None else str(row.rank), row.rank),
        (f"#{row.number}", row.number),
        (_state(row), row.state),
        *values,
        *(
            (short_value(row.params[k]), row.params[k]) if k in row.params else ("", "")
            for k in keys
        ),
        ("" if row.epochs is None else str(row.epochs), row.epochs),
        ("" if row.seconds is None else duration_text(row.seconds), row.seconds),
        (row.directory, row.number),
    ]


def _breakable(name: str) -> str:
    """Return a column's name that may break after its dots, on paper."""
    return re.sub(r"([./])", r"\1<wbr>", _escape(shortened(name, 28)))


def _state(row: LeaderboardRow) -> str:
    if row.duplicate_of is not None:
        return f"{row.state} (as #{row.duplicate_of})"
    return f"{row.state}: {shortened(row.error, 80)}" if row.error else row.state


def _table_row(row: LeaderboardRow, cells: Sequence[tuple[str, Any]]) -> str:
    made = "".join(
        f"<td>{_escape(shown)}</td>"
        if shown == str(key) or (shown == "" and key is None)
        else f'<td data-key="{_escape(str(key))}">{_escape(shown)}</td>'
        for shown, key in cells
    )
    classes = f"{row.state}{' first' if row.rank == 1 else ''}"
    return f'<tr data-trial="{row.number}" class="{classes}">{made}</tr>'


def _frames(charts: Sequence[Chart]) -> str:
    return "\n".join(
        f'<figure class="{chart.width}"><h3>{_escape(shortened(chart.title, 70))}</h3>'
        f'<p class="note">{_escape(chart.note)}</p><div class="chart" id="{chart.id}" '
        f'style="min-height:{chart.layout["height"]}px"></div></figure>'
        for chart in charts
    )


def _slices(summary: Summary, charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    notes = [f"The values of each parameter against {summary.record.metrics[0]}."]
    if len(charts) < len(summary.record.space):
        notes.append(f"{len(charts)} of {len(summary.record.space)} parameters.")
    notes.append(objective_range(summary.record, reach=1.6)[1])
    note = f'<p class="note">{_escape(" ".join(notes))}</p>'
    return f'<h2>Slices</h2>{note}<div class="charts">{_frames(charts)}</div>'


def _space(record: SweepRecord) -> str:
    rows = "".join(
        f"<tr><td><code>{_escape(key)}</code></td><td>{_escape(shortened(drawn, 400))}</td></tr>"
        for key, drawn in space_rows(record.space)
    )
    return (
        f"<h2>Search space</h2><table><tr><th>parameter</th><th>drawn from</th></tr>{rows}</table>"
        if rows
        else ""
    )
