"""What a user sees of a sweep: a live table on a terminal, a line a trial elsewhere; and the summary at its end.

The lines go to the log either way, so that `sweep.log` has them. Knows trials only as `TrialRecord`.
"""

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from visionsweep.sweep.ranking import best, pareto
from visionsweep.sweep.results import LINK, TABLE, TrialRecord, shown_path
from visionsweep.text import param_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

log = logging.getLogger(__name__)

ERROR_FILE = "error.txt"
_MAX_FAILURES = 5  # named in the summary
_MAX_SOLUTIONS = 20
_REDRAW_SECONDS = 0.1  # at least between two drawings of the table: one takes 2 ms
_ON_SCREEN = "visionsweep_on_screen"  # marks a log record whose line stands on the terminal already


@dataclass(frozen=True)
class Status:
    """Where a sweep stands."""

    complete: int
    pruned: int
    failed: int
    running: int
    total: int | None
    best: TrialRecord | None
    elapsed_seconds: float
    seconds_left: float | None = None  # an estimate; None: nothing to base it on


@dataclass
class _Running:
    slot: int
    params: dict[str, Any]
    step: int | None = None
    value: float | None = None


class Display:
    """Plain lines through logging: one for each trial that ends, and for each that starts again."""

    def __init__(
        self, sweep_dir: Path, *, epochs: int | None = None, metric: str = "value"
    ) -> None:
        """``epochs`` is what a whole trial takes, where that is known; ``metric`` names the (first) objective."""
        self._sweep_dir = sweep_dir
        self._epochs = epochs
        self._metric = metric
        self._running: dict[int, _Running] = {}

    def started(self, number: int, attempt: int, slot: int, params: Mapping[str, Any]) -> None:
        """A worker began with a trial; ``attempt`` is how often it was started before."""
        if attempt:
            self._say(f"#{number:<4} goes on  slot {slot}  {format_params(params)}")
        self._running[number] = _Running(slot, dict(params))

    def reported(
        self, number: int, step: int, value: float, epochs_expected: int | None = None
    ) -> None:
        """A trial reached a value at a step."""
        trial = self._running.get(number)
        if trial is not None:
            trial.step, trial.value = step, value
        self._epochs = epochs_expected or self._epochs

    def ended(self, record: TrialRecord, is_best: bool) -> None:
        """A trial ended for good."""
        self._running.pop(record.number, None)
        if record.state == "failed":
            self._say(self._failure(record), logging.WARNING)
        else:
            self._say(_end_line(record, is_best), is_best=is_best)

    def refresh(self, status: Status) -> None:
        """Show where the sweep stands."""

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        log.info(text)

    def close(self) -> None:
        """Leave the terminal as it was. May be called again."""

    def _failure(self, record: TrialRecord) -> str:
        return f"#{record.number:<4} FAILED   {_reason(record, self._sweep_dir)}"

    def _say(self, line: str, level: int = logging.INFO, *, is_best: bool = False) -> None:
        log.log(level, line)


class LiveDisplay(Display):
    """A table of the running trials at the bottom of a terminal; what is logged meanwhile scrolls above it."""

    def __init__(
        self,
        sweep_dir: Path,
        *,
        epochs: int | None = None,
        metric: str = "value",
        console: "Console | None" = None,
    ) -> None:
        """The table appears with the first `refresh`."""
        from rich.console import Console

        super().__init__(sweep_dir, epochs=epochs, metric=metric)
        self._console = console or Console()
        self._status = Status(0, 0, 0, 0, None, None, 0.0)
        self._live: Live | None = None
        self._drawn = -math.inf
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def refresh(self, status: Status) -> None:
        """Draw the table anew, unless that was just done."""
        self._status = status
        if time.monotonic() - self._drawn < _REDRAW_SECONDS:
            return
        if self._live is None:
            self._live = self._start()
        self._live.refresh()
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Remove the table and give the log its streams back."""
        if self._live is None:
            return
        live, self._live = self._live, None
        live.stop()
        for handler, stream in self._handlers:
            handler.setStream(stream)
            handler.removeFilter(_is_not_on_screen)
        self._handlers.clear()

    def render(self) -> "RenderableType":
        """Return the table and the lines below it; each is one line high, whatever the width."""
        from rich.console import Group
        from rich.rule import Rule
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"
        )
        metric = self._metric.rpartition("/")[2][:10]
        for name in ("slot", "trial", "epoch", metric):
            table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
        table.add_column("parameters", ratio=1, no_wrap=True, overflow="ellipsis")
        fitting = max(self._console.height - 8, 3)  # the lines below must stay in sight
        for number, trial in sorted(self._running.items(), key=lambda item: item[1].slot)[:fitting]:
            cells = (
                str(trial.slot),
                f"#{number}",
                self._progress(trial),
                format_value(trial.value),
            )
            table.add_row(*cells, Text(format_params(_short_keys(trial.params))))
        hidden = len(self._running) - fitting
        lines = [f"and {hidden} more running"] if hidden > 0 else []
        lines += _status_lines(self._status)
        return Group(
            Rule(style="dim"), table, *(Text(x, no_wrap=True, overflow="ellipsis") for x in lines)
        )

    def _progress(self, trial: _Running) -> str:
        step = "-" if trial.step is None else str(trial.step)
        return step if self._epochs is None else f"{step}/{self._epochs}"

    def _say(self, line: str, level: int = logging.INFO, *, is_best: bool = False) -> None:
        if self._live is None:
            log.log(level, line)
            return
        from rich.text import Text

        is_failure = level > logging.INFO
        style = "red" if is_failure else "bold green" if is_best else ""
        self._console.print(
            Text(line, style), no_wrap=not is_failure, overflow="fold" if is_failure else "ellipsis"
        )
        log.log(level, line, extra={_ON_SCREEN: True})

    def _start(self) -> "Live":
        from rich.live import Live

        streams = (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)
        # A stderr that goes to a file is left to go there.
        live = Live(
            console=self._console,
            get_renderable=self.render,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        live.start()
        self._console.show_cursor(True)  # a killed process could not bring it back
        # Handlers hold the stream that they were made with, and would write across the table.
        for handler in _stream_handlers():
            for before, now in zip(streams, (sys.stdout, sys.stderr), strict=True):
                if handler.stream in before and now is not before[0]:
                    self._handlers.append((handler, handler.stream))
                    handler.setStream(now)
                    handler.addFilter(_is_not_on_screen)
                    break
        return live


def make_display(
    sweep_dir: Path,
    *,
    epochs: int | None = None,
    metric: str = "value",
    is_terminal: bool | None = None,
) -> Display:
    """Return the live table for a terminal that can show it, else plain lines.

    ``is_terminal`` is found out from stdout unless given.
    """
    if sys.stdout.isatty() if is_terminal is None else is_terminal:
        from rich.console import Console

        console = Console()
        if not console.is_dumb_terminal and console.encoding.startswith("utf"):
            return LiveDisplay(sweep_dir, epochs=epochs, metric=metric, console=console)
    return Display(sweep_dir, epochs=epochs, metric=metric)


def _stream_handlers() -> list[logging.StreamHandler[TextIO]]:
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    handlers = {h: None for lg in loggers if isinstance(lg, logging.Logger) for h in lg.handlers}
    return [
        h
        for h in handlers
        if isinstance(h, logging.StreamHandler) and not isinstance(h, logging.FileHandler)
    ]


def _is_not_on_screen(record: logging.LogRecord) -> bool:
    return not hasattr(record, _ON_SCREEN)


# -- text


def format_params(params: Mapping[str, Any]) -> str:
    """Return `key=value` of each parameter, with floats cut to three digits: to look at, not to type again."""
    return " ".join(f"{key}={_short_value(value)}" for key, value in params.items())


def format_value(value: float | None) -> str:
    """Return an objective with four digits behind the point, or four significant ones where it is very small."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:.6g}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """Return a duration in the two largest units that matter."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min {rest:02d} s"
    days, hours = divmod(hours, 24)
    return f"{hours} h {minutes:02d} min" if days == 0 else f"{days} d {hours:02d} h"


def _short_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.6g}"
    return param_text(value)


def _short_keys(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the groups of the keys where the last part says enough."""
    last = Counter(key.rpartition(".")[2] for key in params)
    return {
        name if last[name := key.rpartition(".")[2]] == 1 else key: value
        for key, value in params.items()
    }


def _format_values(record: TrialRecord) -> str:
    return " / ".join(map(format_value, record.values)) if record.values else "-"


def _spread(record: TrialRecord) -> str:
    return (
        ""
        if record.seed_std is None
        else f" +- {record.seed_std:.2g} over {len(record.seed_values)} seeds"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _end_line(record: TrialRecord, is_best: bool) -> str:
    word = "stopped" if record.state == "running" else record.state
    value = _format_values(record) + ("*" if is_best else "") + _spread(record)
    parts = [f"#{record.number:<4} {word:<8} {value:<8}"]
    if record.duplicate_of is not None:
        parts.append(f"same as #{record.duplicate_of}")
    elif record.start is not None and record.end is not None:
        parts.append(f"{format_seconds(record.end - record.start):>7}")
    if record.epochs is not None and record.duplicate_of is None:
        is_whole = record.state == "complete"
        parts.append(_counted(record.epochs, "epoch") if is_whole else f"at epoch {record.epochs}")
    return "  ".join([*parts, format_params(record.params)]).rstrip()


def _reason(record: TrialRecord, sweep_dir: Path) -> str:
    file = shown_path(sweep_dir / record.directory / ERROR_FILE)
    tries = (
        f", {_counted(record.retries, 'retry').replace('retrys', 'retries')}"
        if record.retries
        else ""
    )
    return f"{record.error or 'unknown error'} ({file}{tries})"


def _status_lines(status: Status) -> list[str]:
    ended = status.complete + status.pruned + status.failed
    of = "" if status.total is None else f"/{status.total}"
    counts = f"{status.complete} complete, {status.pruned} pruned, {status.failed} failed"
    left = (
        "" if status.seconds_left is None else f", about {format_seconds(status.seconds_left)} left"
    )
    top = status.best
    return [
        f"{ended}{of} trials: {counts}",
        "best: none yet"
        if top is None
        else f"best {_format_values(top)}  #{top.number}  {format_params(top.params)}",
        f"elapsed {format_seconds(status.elapsed_seconds)}{left}",
    ]


# -- the end of a sweep


def summary(
    trials: Sequence[TrialRecord],
    directions: Sequence[str],
    *,
    sweep_dir: Path,
    continue_command: str,
    reproduce_command: str | None = None,
    full_epochs: int | None = None,
    metric: str = "value",
    interrupted: bool = False,
) -> list[str]:
    """Return the lines at the end of a sweep; the last one names the command that goes on.

    ``full_epochs`` is what a pruned trial would have taken, for what pruning saved; None leaves that line out.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    lines = [_counts_line(trials, interrupted)]
    lines += _best_lines(trials, directions, metric)
    lines += _saved_lines(trials, full_epochs)
    lines += _failed_lines(trials, sweep_dir)
    chosen = best(trials, directions)
    if chosen is not None:
        table, link = shown_path(sweep_dir / TABLE), shown_path(sweep_dir / LINK)
        lines.append(f"results: {table}; the best trial's directory: {link}")
        if reproduce_command is not None:
            what = f"trial {chosen.number}" + (", its first seed," if chosen.seed_values else "")
            lines.append(f"{what} again: {reproduce_command}")
    return [*lines, f"go on with: {continue_command}"]


def _counts_line(trials: Sequence[TrialRecord], interrupted: bool) -> str:
    counts = Counter[str](trial.state for trial in trials)
    states = [
        f"{counts[state]} {state}" for state in ("complete", "pruned", "failed") if counts[state]
    ]
    if counts["running"]:
        states.append(f"{counts['running']} not finished yet")
    repeated = sum(trial.duplicate_of is not None for trial in trials)
    if repeated:
        states.append(f"{repeated} of them took the value of an equal one")
    line = (
        f"{_counted(len(trials), 'trial')}: {', '.join(states)}" if trials else "no trial has ended"
    )
    return f"interrupted after {line}" if interrupted and trials else line


def _best_lines(trials: Sequence[TrialRecord], directions: Sequence[str], metric: str) -> list[str]:
    chosen = best(trials, directions)
    if chosen is None:
        return ["no trial finished: there is no best one"]
    if len(directions) == 1:
        value = f"{_format_values(chosen)}{_spread(chosen)}"
        return [f"best {metric} {value}, trial {chosen.number}: {format_params(chosen.params)}"]
    front = pareto(trials, directions)
    names = [metric, *(f"value_{i}" for i in range(1, len(directions)))]
    rows = [["trial", *names, "parameters"]]
    rows += [
        [str(t.number), *map(format_value, t.values or ()), format_params(t.params)]
        for t in front[:_MAX_SOLUTIONS]
    ]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    lines = [
        f"{_counted(len(front), 'trial')} that no other beats in every objective (the Pareto set):"
    ]
    for *cells, params in rows:
        lines.append(
            "  ".join(
                ["", *(c.rjust(w) for c, w in zip(cells, widths, strict=True)), params]
            ).rstrip()
        )
    if len(front) > _MAX_SOLUTIONS:
        lines.append(f"  and {len(front) - _MAX_SOLUTIONS} more")
    return lines


def _saved_lines(trials: Sequence[TrialRecord], full_epochs: int | None) -> list[str]:
    own = [trial for trial in trials if trial.duplicate_of is None]
    pruned = [trial for trial in own if trial.state == "pruned"]
    if full_epochs is None or not pruned:
        return []
    saved = sum(max(full_epochs - (trial.epochs or 0), 0) for trial in pruned)
    spent = sum(trial.epochs or 0 for trial in own if trial.state in ("complete", "pruned"))
    return [
        f"pruning saved {saved} of {saved + spent} epochs ({100 * saved / max(saved + spent, 1):.0f} %)"
    ]


def _failed_lines(trials: Sequence[TrialRecord], sweep_dir: Path) -> list[str]:
    failed = [trial for trial in trials if trial.state == "failed"]
    lines = [f"  #{trial.number} {_reason(trial, sweep_dir)}" for trial in failed[:_MAX_FAILURES]]
    if len(failed) > _MAX_FAILURES:
        lines.append(
            f"  and {len(failed) - _MAX_FAILURES} more: see {shown_path(sweep_dir / TABLE)}"
        )
    return ["failed:", *lines] if lines else []
