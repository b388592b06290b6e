"""The display of a running sweep: its lines, its live table at two widths, and the log file."""

import io
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.sweep import records
from visionsweep.rundir.layout import SWEEP_LOG
from visionsweep.sweep.display import Display, LiveDisplay, Status, make_display
from visionsweep.sweep.trial_record import TrialRecord

PARAMS = {"loss": "focal", "optim.lr": 0.0031234}
SWEEP = Path("multirun/faces")


def record(number: int, *values: float, **more: Any) -> TrialRecord:
    given = {"params": PARAMS, "start": 10.0, "end": 99.0, "seconds": 3.2, "epochs": 12} | more
    return records.record(number, *values, **given)


FAILED = record(
    9, state="failed", error="ValueError: model.num_classes: expected 10, got 3", epochs=None
)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


# -- lines


def test_each_end_is_one_line(logged: pytest.LogCaptureFixture) -> None:
    display = Display(SWEEP)
    display.started(7, 0, 0, PARAMS)
    display.reported(7, 1, 0.5)
    display.ended(record(7, 0.93119), is_best=True)
    display.ended(record(8, 0.41, state="pruned", epochs=3), is_best=False)
    display.ended(FAILED, is_best=False)
    display.ended(record(10, 0.93119, duplicate_of=7, directory="7"), is_best=False)
    display.ended(record(11, 0.5, 61706.0, epochs=1), is_best=True)
    display.ended(record(12, 0.5, seed_values=(0.4, 0.6)), is_best=False)
    display.ended(record(13, 0.4, state="pruned", seed_values=(0.3, 0.5)), is_best=False)
    display.refresh(Status({"complete": 1}, 20, None, 1.0))
    display.close()
    shown = "loss=focal optim.lr=0.00312"
    assert [line.rstrip() for line in logged.messages] == [
        f"#7    complete 0.9312*     3.2 s  12 epochs  {shown}",
        f"#8    pruned   0.4100      3.2 s  at epoch 3  {shown}",
        f"#9    FAILED   {FAILED.error} (multirun/faces/9/error.txt)",
        f"#10   complete 0.9312    same as #7  {shown}",
        f"#11   complete 0.5000 / 61706*    3.2 s  1 epoch  {shown}",
        f"#12   complete 0.5000 +- 0.14 over 2 seeds    3.2 s  12 epochs  {shown}",
        f"#13   pruned   0.4000 +- 0.14 over 2 seeds    3.2 s  12 epochs  {shown}",
    ]
    assert [r.levelname for r in logged.records].count("WARNING") == 1


def test_a_resumed_trial_and_a_note_are_lines_too(logged: pytest.LogCaptureFixture) -> None:
    display = Display(SWEEP)
    display.started(3, 2, 1, PARAMS)
    display.note("worker 1 was replaced")
    display.ended(record(3, state="failed", error="killed by signal 9", retries=2), is_best=False)
    display.ended(record(4, state="failed", error="lost", retries=1), is_best=False)
    assert logged.messages == [
        "#3    resumed  slot 1  loss=focal optim.lr=0.00312",
        "worker 1 was replaced",
        "#3    FAILED   killed by signal 9 (multirun/faces/3/error.txt, 3 attempts)",
        "#4    FAILED   lost (multirun/faces/4/error.txt, 2 attempts)",
    ]


def test_the_live_table_is_for_terminals_that_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_display(SWEEP)) is Display  # pytest's stdout is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert type(make_display(SWEEP)) is LiveDisplay
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_display(SWEEP)) is Display


# -- the live table


def console(width: int, height: int = 30) -> Console:
    return Console(file=io.StringIO(), record=True, width=width, height=height, force_terminal=True)


def filled(screen: Console, slots: int = 2, *, best: TrialRecord | None = None) -> LiveDisplay:
    display = LiveDisplay(SWEEP, epochs=27, metric="val/f1_macro", console=screen)
    wide = {
        "loss": "cross_entropy",
        "optim.lr": 0.0031234,
        "model.dropout": 0.25,
        "augment.strength": 0.123456,
    }
    for number in range(slots):
        display.started(number, 0, slots - 1 - number, wide)
    display.reported(0, 5, 0.81239)
    display._status = Status({"complete": 12, "pruned": 5, "failed": 1}, 100, best, 192.0, 440.0)
    return display


def screen_of(display: LiveDisplay, screen: Console) -> list[str]:
    screen.print(display.render())
    return [line.rstrip() for line in screen.export_text().splitlines()]


def test_the_table_at_100_columns() -> None:
    screen = console(100)
    rule, *lines = screen_of(filled(screen, best=record(7, 0.93119)), screen)
    assert set(rule) == {"\u2500"}
    assert lines == [
        "slot  trial  epoch  f1_macro  parameters",
        "   0     #1   -/27         -  loss=cross_entropy lr=0.00312 dropout=0.25 strength=0.123",
        "   1     #0   5/27    0.8124  loss=cross_entropy lr=0.00312 dropout=0.25 strength=0.123",
        "18/100 trials: 12 complete, 5 pruned, 1 failed",
        "best 0.9312  #7  loss=focal optim.lr=0.00312",
        "elapsed 3 min 12 s, about 7 min 20 s left",
    ]


def test_the_table_at_60_columns_cuts_parameters_and_wraps_nothing() -> None:
    screen = console(60)
    params = {f"group.parameter_{i}": i for i in range(9)}
    lines = screen_of(filled(screen, best=record(7, 0.93119, params=params)), screen)
    assert len(lines) == 7
    assert max(map(len, lines)) == 60
    assert lines[2] == "   0     #1   -/27         -  loss=cross_entropy lr=0.00312\u2026"
    assert lines[4:] == [
        "18/100 trials: 12 complete, 5 pruned, 1 failed",
        "best 0.9312  #7  group.parameter_0=0 group.parameter_1=1 gr\u2026",
        "elapsed 3 min 12 s, about 7 min 20 s left",
    ]


def test_the_lines_below_the_table_stay_visible() -> None:
    screen = console(100, height=12)
    lines = screen_of(filled(screen, slots=40), screen)
    assert len(lines) < 12
    assert lines[-4:-1] == [
        "and 36 more running",
        "18/100 trials: 12 complete, 5 pruned, 1 failed",
        "best: none yet",
    ]


def test_a_trial_that_ended_leaves_the_table() -> None:
    screen = console(100)
    display = filled(screen)
    display.ended(record(0, 0.5), is_best=False)
    display.reported(0, 6, 0.9)  # a late report does not bring it back
    text = "\n".join(screen_of(display, screen))
    assert "#1" in text
    assert "#0" not in text


def test_keys_are_shortened_if_their_last_part_is_unique() -> None:
    screen = console(100)
    display = LiveDisplay(SWEEP, console=screen)
    display.started(0, 0, 0, {"a.lr": 1, "b.lr": 2, "b.c": "[bold]x[/bold]"})
    display.reported(0, 3, 0.25)
    lines = screen_of(display, screen)
    assert lines[1] == "slot  trial  epoch   value  parameters"
    assert lines[2] == "   0     #0      3  0.2500  a.lr=1 b.lr=2 c=[bold]x[/bold]"


@pytest.fixture
def handlers(tmp_path: Path) -> Iterator[tuple[logging.StreamHandler[Any], Path]]:
    """Add Hydra's handlers: one for the original sys.stdout, one for a file."""
    root, level = logging.getLogger(), logging.getLogger().level
    stream, file = logging.StreamHandler(sys.stdout), logging.FileHandler(tmp_path / SWEEP_LOG)
    root.setLevel(logging.INFO)
    for handler in (stream, file):
        root.addHandler(handler)
    yield stream, tmp_path / SWEEP_LOG
    root.setLevel(level)
    for handler in (stream, file):
        root.removeHandler(handler)
        handler.close()


def as_seen(screen: Console) -> list[str]:
    """Return the lines a terminal shows. Knows carriage return, cursor up and erase line."""
    assert isinstance(screen.file, io.StringIO)
    lines, row = [""], 0
    for code, text in re.findall(r"\x1b\[([?0-9;]*[A-Za-z])|([^\x1b]+)", screen.file.getvalue()):
        if code == "1A":
            row -= 1
        elif code == "2K":
            lines[row] = ""
        for part in re.findall(r"[\r\n]|[^\r\n]+", text):
            if part == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif part != "\r":
                lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


def test_other_output_scrolls_above_the_table(
    handlers: tuple[logging.StreamHandler[Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    handler, log_file = handlers
    handler.setStream(sys.stdout)  # capsys replaced it after the handler was made
    before = sys.stdout
    screen = console(60)
    display = filled(screen)
    display.note("before the table")
    display.refresh(Status({}, 10, None, 1.0))
    logging.getLogger("somebody").warning("a log line")
    print("a printed line")
    display.note("a note")
    long = {f"parameter_{i}": i for i in range(20)}
    display.ended(record(1, 0.93119, params=long), is_best=True)
    display.ended(FAILED, is_best=False)
    assert as_seen(screen)[6:8] == ["\u2500" * 60, "slot  trial  epoch  f1_macro  parameters"]
    assert len(as_seen(screen)) == 6 + 7  # only the last table remains
    # The rest goes through the table's console.
    assert capsys.readouterr().out == "before the table\n"
    display.close()
    assert sys.stdout is before
    assert handler.stream is before
    logging.getLogger("somebody").info("after the table")
    display.ended(record(2, 0.5), is_best=False)
    display.close()
    shown = capsys.readouterr().out.splitlines()
    assert [line[:15] for line in shown] == ["after the table", "#2    complete "]
    # The error is wrapped, the parameters are cut, and the table is gone.
    assert as_seen(screen) == [
        "a log line",
        "a printed line",
        "a note",
        "#1    complete 0.9312*     3.2 s  12 epochs  parameter_0=0 \u2026",
        "#9    FAILED   ValueError: model.num_classes: expected 10,",
        "got 3 (multirun/faces/9/error.txt)",
    ]
    written = log_file.read_text().splitlines()
    assert [line.split()[0] for line in written] == ["before", "a", "a", "#1", "#9", "after", "#2"]
    assert written[3].endswith("parameter_19=19")  # not cut


def test_closing_restores_the_terminal() -> None:
    screen = console(60)
    display = filled(screen)
    display.refresh(Status({}, 10, None, 1.0))
    assert isinstance(screen.file, io.StringIO)
    written = screen.file.getvalue()
    # The cursor is visible while the table is shown, in case of SIGKILL.
    show_cursor, hide_cursor = "\x1b[?25h", "\x1b[?25l"
    assert written.rindex(show_cursor) > written.rindex(hide_cursor)
    assert "0/10 trials" in written
    display.close()
    # "Up" and "erase" for each of the table's seven lines.
    assert screen.file.getvalue()[len(written) :].count("\x1b[1A\x1b[2K") >= 7


def test_the_table_is_redrawn_ten_times_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    screen = console(60)
    display = filled(screen)
    assert isinstance(screen.file, io.StringIO)
    for complete in range(5):
        display.refresh(Status({"complete": complete}, 10, None, 1.0))
    assert "0/10 trials" in screen.file.getvalue()
    assert "4/10 trials" not in screen.file.getvalue()
    now += 0.11
    display.refresh(Status({"complete": 5}, 10, None, 1.0))
    assert "5/10 trials" in screen.file.getvalue()
    display.close()
