"""What a user sees of a sweep: the lines, the live table at two widths, the log beside it, and the summary."""

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

from visionsweep.sweep.display import (
    Display,
    LiveDisplay,
    Status,
    format_params,
    format_seconds,
    format_value,
    make_display,
    summary,
)
from visionsweep.sweep.results import TrialRecord

PARAMS = {"loss": "focal", "optim.lr": 0.0031234}
SWEEP = Path("multirun/faces")


def record(number: int, *values: float, state: Any = "complete", **more: Any) -> TrialRecord:
    more = {
        "params": PARAMS,
        "start": 10.0,
        "end": 13.2,
        "epochs": 12,
        "directory": str(number),
        **more,
    }
    return TrialRecord(number, state, values or None, **more)


FAILED = record(
    9, state="failed", error="ValueError: model.num_classes: expected 10, got 3", epochs=None
)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


# -- text


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"optim.lr": 0.0031234567, "loss": "focal"}, "optim.lr=0.00312 loss=focal"),
        ({"a": 1e-05, "b": 12345.678, "c": 0.5, "d": 3}, "a=1e-05 b=12345.7 c=0.5 d=3"),
        ({"a": None, "b": True, "c": "x y"}, "a=null b=true c=x y"),
        ({}, ""),
    ],
)
def test_parameters_are_shown_short(params: dict[str, Any], text: str) -> None:
    assert format_params(params) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93119, "0.9312"),
        (0.5, "0.5000"),
        (0.0, "0.0000"),
        (-0.000123456, "-0.0001235"),
        (61706.0, "61706"),
        (1234.5678, "1234.57"),
        (None, "-"),
    ],
)
def test_objectives_are_shown_with_four_digits(value: float | None, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min 00 s"),
        (252, "4 min 12 s"),
        (7500, "2 h 05 min"),
        (2e5, "2 d 07 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


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
    display.refresh(Status(1, 1, 1, 0, 20, None, 1.0))
    display.close()
    assert [line.rstrip() for line in logged.messages] == [
        "#7    complete 0.9312*     3.2 s  12 epochs  loss=focal optim.lr=0.00312",
        "#8    pruned   0.4100      3.2 s  at epoch 3  loss=focal optim.lr=0.00312",
        "#9    FAILED   ValueError: model.num_classes: expected 10, got 3 (multirun/faces/9/error.txt)",
        "#10   complete 0.9312    same as #7  loss=focal optim.lr=0.00312",
        "#11   complete 0.5000 / 61706*    3.2 s  1 epoch  loss=focal optim.lr=0.00312",
        "#12   complete 0.5000 +- 0.14 over 2 seeds    3.2 s  12 epochs  loss=focal optim.lr=0.00312",
    ]
    assert [r.levelname for r in logged.records].count("WARNING") == 1


def test_a_trial_that_starts_again_and_a_note_are_lines_too(
    logged: pytest.LogCaptureFixture,
) -> None:
    display = Display(SWEEP)
    display.started(3, 2, 1, PARAMS)
    display.note("worker 1 was replaced")
    display.ended(record(3, state="failed", error="killed by signal 9", retries=2), is_best=False)
    display.ended(record(4, state="failed", error="lost", retries=1), is_best=False)
    assert logged.messages == [
        "#3    goes on  slot 1  loss=focal optim.lr=0.00312",
        "worker 1 was replaced",
        "#3    FAILED   killed by signal 9 (multirun/faces/3/error.txt, 2 retries)",
        "#4    FAILED   lost (multirun/faces/4/error.txt, 1 retry)",
    ]


def test_the_live_table_is_for_terminals_that_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_display(SWEEP)) is Display  # pytest's stdout is no terminal
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take any stream for a terminal
    assert type(make_display(SWEEP, is_terminal=True)) is LiveDisplay
    assert type(make_display(SWEEP, is_terminal=False)) is Display
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_display(SWEEP, is_terminal=True)) is Display


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
    display._status = Status(12, 5, 1, slots, 100, best, 192.0, 440.0)
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


def test_the_lines_below_the_table_stay_in_sight_on_a_low_terminal() -> None:
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
    display.reported(0, 6, 0.9)  # too late: it does not come back
    text = "\n".join(screen_of(display, screen))
    assert "#1" in text
    assert "#0" not in text


def test_keys_are_shortened_only_where_that_says_enough() -> None:
    screen = console(100)
    display = LiveDisplay(SWEEP, console=screen)
    display.started(0, 0, 0, {"a.lr": 1, "b.lr": 2, "b.c": "[bold]x[/bold]"})
    display.reported(0, 3, 0.25)
    lines = screen_of(display, screen)
    assert lines[1] == "slot  trial  epoch   value  parameters"
    assert lines[2] == "   0     #0      3  0.2500  a.lr=1 b.lr=2 c=[bold]x[/bold]"


@pytest.fixture
def handlers(tmp_path: Path) -> Iterator[tuple[logging.StreamHandler[Any], Path]]:
    """Hydra's handlers: one made with sys.stdout as it was, one that writes to a file."""
    root, level = logging.getLogger(), logging.getLogger().level
    stream, file = logging.StreamHandler(sys.stdout), logging.FileHandler(tmp_path / "sweep.log")
    root.setLevel(logging.INFO)
    for handler in (stream, file):
        root.addHandler(handler)
    yield stream, tmp_path / "sweep.log"
    root.setLevel(level)
    for handler in (stream, file):
        root.removeHandler(handler)
        handler.close()


def as_seen(screen: Console) -> list[str]:
    """Return the lines that a terminal shows: knows carriage return, cursor up and erase line."""
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


def test_what_others_write_stands_above_the_table(
    handlers: tuple[logging.StreamHandler[Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    handler, log_file = handlers
    handler.setStream(sys.stdout)  # capsys came after it
    before = sys.stdout
    screen = console(60)
    display = filled(screen)
    display.note("before the table")
    display.refresh(Status(0, 0, 0, 2, 10, None, 1.0))
    logging.getLogger("somebody").warning("a log line")
    print("a printed line")
    display.note("a note")
    long = {f"parameter_{i}": i for i in range(20)}
    display.ended(record(1, 0.93119, params=long), is_best=True)
    display.ended(FAILED, is_best=False)
    assert as_seen(screen)[6:8] == ["\u2500" * 60, "slot  trial  epoch  f1_macro  parameters"]
    assert len(as_seen(screen)) == 6 + 7  # one table, as drawn last
    assert (
        capsys.readouterr().out == "before the table\n"
    )  # the rest goes through the table's console
    display.close()
    assert sys.stdout is before
    assert handler.stream is before
    logging.getLogger("somebody").info("after the table")
    display.ended(record(2, 0.5), is_best=False)
    display.close()
    shown = capsys.readouterr().out.splitlines()
    assert [line[:15] for line in shown] == ["after the table", "#2    complete "]

    assert as_seen(screen) == [  # a reason is wrapped, parameters are cut, and no table is left
        "a log line",
        "a printed line",
        "a note",
        "#1    complete 0.9312*     3.2 s  12 epochs  parameter_0=0 \u2026",
        "#9    FAILED   ValueError: model.num_classes: expected 10,",
        "got 3 (multirun/faces/9/error.txt)",
    ]
    written = log_file.read_text().splitlines()
    assert [line.split()[0] for line in written] == ["before", "a", "a", "#1", "#9", "after", "#2"]
    assert written[3].endswith("parameter_19=19")  # whole


def test_the_terminal_is_left_as_it_was() -> None:
    screen = console(60)
    display = filled(screen)
    display.refresh(Status(0, 0, 0, 2, 10, None, 1.0))
    assert isinstance(screen.file, io.StringIO)
    written = screen.file.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex(
        "\x1b[?25l"
    )  # the cursor shows, in case of SIGKILL
    assert "0/10 trials" in written
    display.close()
    # Up and erase, a line each, for the seven lines of the table.
    assert screen.file.getvalue()[len(written) :].count("\x1b[1A\x1b[2K") >= 7


def test_the_table_is_not_drawn_more_often_than_one_can_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    screen = console(60)
    display = filled(screen)
    assert isinstance(screen.file, io.StringIO)
    for complete in range(5):
        display.refresh(Status(complete, 0, 0, 2, 10, None, 1.0))
    assert "0/10 trials" in screen.file.getvalue()
    assert "4/10 trials" not in screen.file.getvalue()
    now += 0.11
    display.refresh(Status(5, 0, 0, 2, 10, None, 1.0))
    assert "5/10 trials" in screen.file.getvalue()
    display.close()


# -- the summary


def lines_of(
    trials: list[TrialRecord], directions: list[str] | None = None, **more: Any
) -> list[str]:
    more = {
        "sweep_dir": SWEEP,
        "continue_command": "python train.py --multirun study=faces",
        **more,
    }
    return summary(trials, directions or ["maximize"], **more)


def test_the_summary_of_a_sweep() -> None:
    trials = [
        record(2, 0.4, state="pruned", epochs=3),
        record(0, 0.9, epochs=27, seed_values=(0.8, 0.9, 1.0)),
        record(1, 0.2, state="pruned", epochs=1),
        FAILED,
        record(3, 0.9, epochs=27, duplicate_of=0, directory="0"),
        record(4, state="running", epochs=2),
    ]
    assert lines_of(
        trials,
        full_epochs=27,
        metric="val/f1_macro",
        reproduce_command="python train.py loss=focal",
    ) == [
        "6 trials: 2 complete, 2 pruned, 1 failed, 1 not finished yet, 1 of them took the value of an equal one",
        "best val/f1_macro 0.9000 +- 0.1 over 3 seeds, trial 0: loss=focal optim.lr=0.00312",
        "pruning saved 50 of 81 epochs (62 %)",  # 24 + 26 of 3 trials x 27
        "failed:",
        "  #9 ValueError: model.num_classes: expected 10, got 3 (multirun/faces/9/error.txt)",
        "results: multirun/faces/trials.csv; the best trial's directory: multirun/faces/best",
        "trial 0, its first seed, again: python train.py loss=focal",
        "go on with: python train.py --multirun study=faces",
    ]


def test_the_summary_leaves_out_what_there_is_not() -> None:
    assert lines_of([record(0, 0.9)], full_epochs=12) == [
        "1 trial: 1 complete",
        "best value 0.9000, trial 0: loss=focal optim.lr=0.00312",
        "results: multirun/faces/trials.csv; the best trial's directory: multirun/faces/best",
        "go on with: python train.py --multirun study=faces",
    ]
    assert not [line for line in lines_of([record(0, 0.9, state="pruned")]) if "saved" in line]
    assert lines_of([record(0, state="running")], interrupted=True) == [
        "interrupted after 1 trial: 1 not finished yet",
        "no trial finished: there is no best one",
        "go on with: python train.py --multirun study=faces",
    ]
    assert lines_of([])[0] == "no trial has ended"


def test_at_most_five_failures_are_named() -> None:
    failed = [record(n, state="failed", error=f"E{n}", directory=str(n)) for n in range(8)]
    lines = lines_of(failed)
    start = lines.index("failed:")
    assert lines[start + 1] == "  #0 E0 (multirun/faces/0/error.txt)"
    assert lines[start + 5 : start + 7] == [
        "  #4 E4 (multirun/faces/4/error.txt)",
        "  and 3 more: see multirun/faces/trials.csv",
    ]


def test_the_summary_of_several_objectives_is_the_pareto_set() -> None:
    trials = [record(0, 0.5, 900.0), record(10, 0.93119, 61706.0), record(2, 0.4, 7000.0)]
    lines = lines_of(trials, ["maximize", "minimize"], metric="val/f1_macro")
    assert lines[1:5] == [
        "2 trials that no other beats in every objective (the Pareto set):",
        "  trial  val/f1_macro   value_1  parameters",
        "      0        0.5000  900.0000  loss=focal optim.lr=0.00312",
        "     10        0.9312     61706  loss=focal optim.lr=0.00312",
    ]
    assert lines[5].endswith("/best")
    many = [record(n, float(n), float(n)) for n in range(25)]
    assert "  and 5 more" in lines_of(many, ["maximize", "minimize"])
