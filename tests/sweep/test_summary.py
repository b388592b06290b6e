"""The lines at the end of a sweep."""

from pathlib import Path
from typing import Any

import pytest

from tests.sweep import records
from visionsweep.sweep.summary import failure, summary
from visionsweep.sweep.trial_record import TrialRecord

SWEEP = Path("multirun/faces")


@pytest.fixture(autouse=True)
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The link to the best trial, in the sweep's directory."""
    monkeypatch.chdir(tmp_path)
    SWEEP.mkdir(parents=True)
    path = SWEEP / "best"
    path.symlink_to("0")
    return path


def record(number: int, *values: float, **more: Any) -> TrialRecord:
    params = {"loss": "focal", "optim.lr": 0.0031234}
    return records.record(number, *values, **({"params": params, "start": 10.0} | more))


def lines_of(
    trials: list[TrialRecord], directions: list[str] | None = None, **more: Any
) -> list[str]:
    return summary(trials, directions or ["maximize"], sweep_dir=SWEEP, **more)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, "2 of 3 trials failed, and none is complete: ValueError: bug"),
        ("2 of 3 failed (limit)", "2 of 3 failed (limit): ValueError: bug"),
        ("trial 0: ValueError: bug", "trial 0: ValueError: bug"),
    ],
)
def test_a_failed_sweep_says_why_in_one_line(reason: str | None, expected: str) -> None:
    trials = [record(0, 0.5, state="pruned")]
    trials += [
        record(n, state="failed", error=f"ValueError: {e}") for n, e in ((1, "a"), (2, "bug"))
    ]
    hint = "When it is mended, add hydra.sweeper.rerun_failed=true to the same command"
    assert failure(trials, reason) == f"{expected}. {hint}"
    assert failure(trials[:1], "the time is over") == "the time is over"


def test_the_summary_of_a_sweep() -> None:
    trials = [
        record(2, 0.4, state="pruned", epochs=3),
        record(0, 0.9, epochs=27, seed_values=(0.8, 0.9, 1.0)),
        record(1, 0.2, state="pruned", epochs=1),
        record(9, state="failed", error="ValueError: expected 10, got 3"),
        record(3, 0.9, epochs=27, duplicate_of=0, directory="0"),
        record(4, state="running", epochs=2),
        record(5, state="running", start=None),
    ]
    assert lines_of(
        trials,
        full_epochs=27,
        metric="val/f1_macro",
        repeat_command="python train.py loss=focal",
    ) == [
        "7 trials: 2 complete, 2 pruned, 1 failed, 1 unfinished, 1 not started "
        "(1 with the value of an equal trial)",
        "best val/f1_macro 0.9000 +- 0.1 over 3 seeds, trial 0: loss=focal optim.lr=0.00312",
        "pruning saved 50 of 81 epochs (62 %)",  # 24 + 26 of 3 trials x 27
        "failed (to run them again: hydra.sweeper.rerun_failed=true):",
        "  #9 ValueError: expected 10, got 3 (multirun/faces/9/error.txt)",
        "results: multirun/faces/trials.csv; the best trial: multirun/faces/best",
        "repeat trial 0 (its first run) with: python train.py loss=focal",
    ]


def test_the_summary_without_failures_or_results() -> None:
    assert lines_of([record(0, 0.9)], full_epochs=12) == [
        "1 trial: 1 complete",
        "best value 0.9000, trial 0: loss=focal optim.lr=0.00312",
        "results: multirun/faces/trials.csv; the best trial: multirun/faces/best",
    ]
    assert not [line for line in lines_of([record(0, 0.9, state="pruned")]) if "saved" in line]
    assert lines_of([record(0, state="running")], is_interrupted=True) == [
        "interrupted after 1 trial: 1 unfinished",
        "no trial is complete, so there is no best one",
    ]
    assert lines_of([])[0] == "no trial has ended"


def test_at_most_five_failures_are_named() -> None:
    failed = [record(n, state="failed", error=f"E{n}", directory=str(n)) for n in range(8)]
    lines = lines_of(failed)
    start = lines.index("failed (to run them again: hydra.sweeper.rerun_failed=true):")
    assert lines[start + 1] == "  #0 E0 (multirun/faces/0/error.txt)"
    assert lines[start + 5 : start + 7] == [
        "  #4 E4 (multirun/faces/4/error.txt)",
        "  and 3 more: see multirun/faces/trials.csv",
    ]


def test_the_summary_of_several_objectives_is_the_pareto_set() -> None:
    trials = [record(0, 0.5, 900.0), record(10, 0.93119, 61706.0), record(2, 0.4, 7000.0)]
    lines = lines_of(trials, ["maximize", "minimize"], metric="val/f1_macro")
    assert lines[1:5] == [
        "Pareto set: 2 trials that no other beats in every objective",
        "  trial  val/f1_macro   value_1  parameters",
        "      0        0.5000  900.0000  loss=focal optim.lr=0.00312",
        "     10        0.9312     61706  loss=focal optim.lr=0.00312",
    ]
    assert lines[5].endswith("/best")
    many = [record(n, float(n), float(n)) for n in range(25)]
    assert "  and 5 more" in lines_of(many, ["maximize", "minimize"])


def test_without_the_link_the_best_trial_is_named_by_its_directory(link: Path) -> None:
    link.unlink()
    assert lines_of([record(3, 0.9)])[-1].endswith("the best trial: multirun/faces/3")


def test_what_to_expect_follows_the_best_trial() -> None:
    lines = lines_of([record(0, 0.5)], expectation="on new images expect value 0.4")
    assert lines[1].startswith("best value 0.5000, trial 0")
    assert lines[2] == "on new images expect value 0.4"
