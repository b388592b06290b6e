"""A sweep while it runs: one line per event, and on a terminal a live table of the running trials.

The lines go to the log either way, so that `sweep.log` has them.
"""

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.text import counted, duration_text, objective_text, params_text

log = logging.getLogger(__name__)

_REDRAW_SECONDS = 0.1  # between two drawings of the table; one takes 2 ms
_ON_SCREEN = "visionsweep_on_screen"  # marks a log record that is on the terminal already


@dataclass(frozen=True)
class Status:
    """The progress of a sweep."""

    counts: Mapping[str, int]  # of complete, pruned and failed trials
    total: int | None  # None: no limit
    best: TrialRecord | None
    elapsed_seconds: float
    seconds_left: float | None = None  # an estimate; None: unknown


@dataclass
class _Row:
    """A running trial in the table."""

    slot: int
    params: dict[str, Any]
    step: int | None = None
    value: float | None = None


class Display:
    """Plain lines through logging: one per trial that ends, and one per trial that is resumed."""

    def __init__(
        self, sweep_dir: Path, *, epochs: int | None = None, metric: str = "value"
    ) -> None:
        """``epochs``: those of a whole run, if known. ``metric``: the name of the objective."""
        self._sweep_dir = sweep_dir
        self._epochs = epochs
        self._metric = metric
        self._rows: dict[int, _Row] = {}

    def started(self, number: int, attempt: int, slot: int, params: Mapping[str, Any]) -> None:
        """A worker started a trial; ``attempt`` is 0 unless it was started before."""
        if attempt:
            self._say(f"#{number:<4} resumed  slot {slot}  {params_text(params)}")
        self._rows[number] = _Row(slot, dict(params))

    def reported(self, number: int, step: int, value: float) -> None:
        """A trial reached a value at a step."""
        if number in self._rows:
            self._rows[number].step, self._rows[number].value = step, value

    def paused(self, number: int) -> None:
        """A trial ended its turn; another one is trained first."""
        self._rows.pop(number, None)

    def ended(self, record: TrialRecord, is_best: bool) -> None:
        """A trial ended for good."""
        self._rows.pop(record.number, None)
        if record.state == "failed":
            reason = record.failure_text(self._sweep_dir)
            self._say(f"#{record.number:<4} FAILED   {reason}", logging.WARNING)
        else:
            self._say(_end_line(record, is_best), is_best=is_best)

    def refresh(self, status: Status) -> None:
        """Show the progress."""

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        log.info(text)

    def close(self) -> None:
        """Leave the terminal as it was. May be called again."""

    def _say(self, line: str, level: int = logging.INFO, *, is_best: bool = False) -> None:
        log.log(level, line)


class LiveDisplay(Display):
    """A table of the running trials at the bottom of a terminal; log lines scroll above it."""

    def __init__(
        self,
        sweep_dir: Path,
        *,
        epochs: int | None = None,
        metric: str = "value",
        console: Console | None = None,
    ) -> None:
        """The table appears with the first `refresh`."""
        super().__init__(sweep_dir, epochs=epochs, metric=metric)
        self._console = console or Console()
        self._status = Status({}, 0, None, 0.0)
        self._live: Live | None = None
        self._drawn = -math.inf
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def refresh(self, status: Status) -> None:
        """Draw the table again, unless that was just done."""
        self._status = status
        if time.monotonic() - self._drawn < _REDRAW_SECONDS:
            return
        if self._live is None:
            self._live = self._start()
        self._live.refresh()
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Remove the table and restore the streams of the log's handlers."""
        if self._live is None:
            return
        live, self._live = self._live, None
        live.stop()
        for handler, stream in self._handlers:
            handler.setStream(stream)
            handler.removeFilter(_is_not_on_screen)
        self._handlers.clear()

    def render(self) -> RenderableType:
        """Return the table and the lines below it, each one line high at any width."""
        table = Table(
            box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"
        )
        metric = self._metric.rpartition("/")[2][:10]
        for name in ("slot", "trial", "epoch", metric):
            table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
        table.add_column("parameters", ratio=1, no_wrap=True, overflow="ellipsis")
        fitting = max(self._console.height - 8, 3)  # the lines below must stay visible
        for number, row in sorted(self._rows.items(), key=lambda item: item[1].slot)[:fitting]:
            epoch = "-" if row.step is None else str(row.step)
            epoch += "" if self._epochs is None else f"/{self._epochs}"
            params = Text(params_text(_short_keys(row.params)))
            table.add_row(str(row.slot), f"#{number}", epoch, objective_text(row.value), params)
        hidden = len(self._rows) - fitting
        lines = [f"and {hidden} more running"] if hidden > 0 else []
        lines += _status_lines(self._status)
        below = (Text(line, no_wrap=True, overflow="ellipsis") for line in lines)
        return Group(Rule(style="dim"), table, *below)

    def _say(self, line: str, level: int = logging.INFO, *, is_best: bool = False) -> None:
        if self._live is None:
            log.log(level, line)
            return
        if level > logging.INFO:  # a reason is wrapped, parameters are cut
            self._console.print(Text(line, "red"), overflow="fold")
        else:
            text = Text(line, "bold green" if is_best else "")
            self._console.print(text, no_wrap=True, overflow="ellipsis")
        log.log(level, line, extra={_ON_SCREEN: True})

    def _start(self) -> Live:
        streams = (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)
        live = Live(
            console=self._console,
            get_renderable=self.render,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # one that goes to a file keeps going there
        )
        live.start()
        self._console.show_cursor(True)  # a killed process could not bring it back
        # Handlers hold the stream they were made with, and would write across the table.
        for handler in _stream_handlers():
            for before, now in zip(streams, (sys.stdout, sys.stderr), strict=True):
                if handler.stream in before and now is not before[0]:
                    self._handlers.append((handler, handler.stream))
                    handler.setStream(now)
                    handler.addFilter(_is_not_on_screen)
                    break
        return live


def make_display(sweep_dir: Path, *, epochs: int | None = None, metric: str = "value") -> Display:
    """Return the live table if stdout is a terminal that can show it, else plain lines."""
    if sys.stdout.isatty():
        console = Console()
        if not console.is_dumb_terminal and console.encoding.startswith("utf"):
            return LiveDisplay(sweep_dir, epochs=epochs, metric=metric, console=console)
    return Display(sweep_dir, epochs=epochs, metric=metric)


def _stream_handlers() -> list[logging.StreamHandler[TextIO]]:
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    handlers = {h: None for lg in loggers if isinstance(lg, logging.Logger) for h in lg.handlers}
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    ]


def _is_not_on_screen(record: logging.LogRecord) -> bool:
    return not hasattr(record, _ON_SCREEN)


def _short_keys(params: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the groups of the keys whose last part is unique."""
    last = Counter(key.rpartition(".")[2] for key in params)
    return {
        name if last[name := key.rpartition(".")[2]] == 1 else key: value
        for key, value in params.items()
    }


def _end_line(record: TrialRecord, is_best: bool) -> str:
    value = record.values_text("*" if is_best else "")
    parts = [f"#{record.number:<4} {record.state:<8} {value:<8}"]
    if record.duplicate_of is not None:
        parts.append(f"same as #{record.duplicate_of}")
    elif record.seconds is not None:
        parts.append(f"{duration_text(record.seconds):>7}")
    if record.epochs is not None and record.duplicate_of is None:
        # With several runs, epochs is their sum, and no place at which the trial ended.
        has_runs = bool(record.seed_values or record.fold_values)
        is_sum = record.state == "complete" or has_runs
        parts.append(counted(record.epochs, "epoch") if is_sum else f"at epoch {record.epochs}")
    return "  ".join([*parts, params_text(record.params)]).rstrip()


def _status_lines(status: Status) -> list[str]:
    counts = [status.counts.get(state, 0) for state in ("complete", "pruned", "failed")]
    best, left = status.best, status.seconds_left
    total = "" if status.total is None else f"/{status.total}"
    return [
        "{}{} trials: {} complete, {} pruned, {} failed".format(sum(counts), total, *counts),
        "best: none yet"
        if best is None
        else f"best {best.values_text()}  #{best.number}  {params_text(best.params)}",
        f"elapsed {duration_text(status.elapsed_seconds)}"
        + ("" if left is None else f", about {duration_text(left)} left"),
    ]
